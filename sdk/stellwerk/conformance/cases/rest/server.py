"""The server itself over REST: health, metadata, paths and methods."""

from __future__ import annotations

from typing import Any

from stellwerk.conformance.cases.case import Area, Cases
from stellwerk.conformance.expect import NotApplicable, equal, failed, json_object, status, that
from stellwerk.conformance.server.rest import model_path
from stellwerk.conformance.server.subject import Subject, Transport

HTTP_API = "inference_rest.md, HTTP/REST (table of endpoints)"
CASES = Cases(Area.REST, Transport.REST, HTTP_API)
HEALTH = Cases(
    Area.HEALTH, Transport.REST, "inference_rest.md, Server Live, Server Ready, Model Ready"
)
_NOBODY = "conformance_nobody"


@CASES.specified("GET /v2/health/live answers 200")
def _live(s: Subject) -> None:
    status(s.http.get("/v2/health/live"), 200)


@CASES.specified("GET /v2/health/ready answers 200")
def _ready(s: Subject) -> None:
    status(s.http.get("/v2/health/ready"), 200)


@CASES.specified("GET /v2/models/MODEL/ready answers 200")
def _model_ready(s: Subject) -> None:
    status(s.http.get(model_path(s.echo(), "ready")), 200)


@CASES.specified("GET /v2/models/MODEL/versions/VERSION/ready answers 200")
def _version_ready(s: Subject) -> None:
    model = s.echo()
    status(s.http.get(model_path(model, "ready", version_of(s, model))), 200)


@CASES.convention(
    "A model that is not there is not ready: any status but 200", "tritonclient is_model_ready"
)
def _unknown_not_ready(s: Subject) -> None:
    reply = s.http.get(model_path(_NOBODY, "ready"))
    that(reply.status >= 400, "an error status", reply.brief())


@CASES.sensible("A version that is not there is not ready: any status but 200")
def _unknown_version_not_ready(s: Subject) -> None:
    reply = s.http.get(model_path(s.echo(), "ready", "999999"))
    that(reply.status >= 400, "an error status", reply.brief())


@HEALTH.specified('Live\'s body is {"live": true}')
def _live_body(s: Subject) -> None:
    equal(json_object(s.http.get("/v2/health/live")).get("live"), True, '"live"')


@HEALTH.specified('Ready\'s body has "live" or "ready", true')
def _ready_body(s: Subject) -> None:
    # The text documents {"live": bool} for readiness too, probably by mistake.
    body = json_object(s.http.get("/v2/health/ready"))
    that(body.get("ready", body.get("live")) is True, '{"ready": true} or {"live": true}', body)


@HEALTH.specified('A ready model\'s body is {"name": MODEL, "ready": true}')
def _model_ready_body(s: Subject) -> None:
    model = s.echo()
    body = json_object(s.http.get(model_path(model, "ready")))
    equal(body.get("name"), model, '"name"')
    equal(body.get("ready"), True, '"ready"')


@CASES.specified("GET /v2 gives name, version and extensions", "inference_rest.md, Server Metadata")
def _server_metadata(s: Subject) -> None:
    reply = s.http.get("/v2")
    status(reply, 200)
    body = json_object(reply)
    that(isinstance(body.get("name"), str), 'a string "name"', body)
    that(isinstance(body.get("version"), str), 'a string "version"', body)
    texts = isinstance(body.get("extensions"), list) and all(
        isinstance(x, str) for x in body["extensions"]
    )
    that(texts, 'a list of strings "extensions"', body)


@CASES.sensible(
    "GET /v2/ is GET /v2", "open_inference_rest.yaml lists /v2/, inference_rest.md lists v2"
)
def _server_metadata_slash(s: Subject) -> None:
    status(s.http.get("/v2/"), 200)


@CASES.specified(
    "GET /v2/models/MODEL describes inputs and outputs", "inference_rest.md, Model Metadata"
)
def _model_metadata(s: Subject) -> None:
    model = s.echo()
    reply = s.http.get(model_path(model))
    status(reply, 200)
    body = json_object(reply)
    equal(body.get("name"), model, '"name"')
    that(isinstance(body.get("platform"), str), 'a string "platform"', body)
    versions = body.get("versions", [])
    that(
        isinstance(versions, list) and all(isinstance(v, str) for v in versions),
        '"versions" of strings',
        body,
    )
    described(body.get("inputs"), [("INPUT0", "FP32", [-1, -1])])
    described(body.get("outputs"), [("OUTPUT0", "FP32", [-1, -1])])


@CASES.specified("Several inputs and outputs are described", "inference_rest.md, Model Metadata")
def _metadata_of_several(s: Subject) -> None:
    body = json_object(s.http.get(model_path(s.model("mixed"))))
    described(body.get("inputs"), [("NUMBERS", "FP32", [-1, -1]), ("TEXTS", "BYTES", [-1, -1])])
    described(
        body.get("outputs"), [("NUMBERS_OUT", "FP32", [-1, -1]), ("TEXTS_OUT", "BYTES", [-1, -1])]
    )


@CASES.specified("A version's metadata has a path of its own", "inference_rest.md, Model Metadata")
def _version_metadata(s: Subject) -> None:
    model = s.echo()
    reply = s.http.get(model_path(model, version=version_of(s, model)))
    status(reply, 200)
    equal(json_object(reply).get("name"), model, '"name"')


@CASES.specified(
    "Metadata of an unknown model is an error with a reason",
    "inference_rest.md, Model Metadata Error",
)
def _metadata_unknown(s: Subject) -> None:
    failed(s.http.get(model_path(_NOBODY)))


@CASES.convention("Metadata of an unknown model answers 404", "Triton, MLServer and KServe do")
def _metadata_unknown_404(s: Subject) -> None:
    status(s.http.get(model_path(_NOBODY)), 404)


@CASES.sensible("Metadata of an unknown version answers 404 or 400")
def _metadata_unknown_version(s: Subject) -> None:
    status(s.http.get(model_path(s.echo(), version="999999")), 404, 400)


@CASES.convention(
    "JSON answers say content-type application/json", "tritonclient, every HTTP client"
)
def _content_type(s: Subject) -> None:
    for path in ("/v2", model_path(s.echo())):
        kind = s.http.get(path).headers.get("content-type", "")
        that(kind.split(";")[0].strip() == "application/json", "application/json", kind)


@CASES.sensible("An unknown path answers 404 with a reason")
def _unknown_path(s: Subject) -> None:
    reply = s.http.get("/v2/no/such/path")
    status(reply, 404)
    failed(reply)


@CASES.sensible("A wrong method answers 405 or 404 with a reason")
def _wrong_method(s: Subject) -> None:
    for method, path in (
        ("POST", "/v2"),
        ("GET", model_path(s.echo(), "infer")),
        ("DELETE", "/v2/health/live"),
    ):
        reply = s.http.send(method, path)
        status(reply, 405, 404)
        failed(reply)


def described(got: Any, expected: list[tuple[str, str, list[int]]]) -> None:
    """Checks that the tensors of metadata are these, in this order."""
    that(isinstance(got, list), "a list of tensors", got)
    found = [(t.get("name"), t.get("datatype"), t.get("shape")) for t in got if isinstance(t, dict)]
    that(found == expected, f"tensors {expected}", found)


def version_of(s: Subject, model: str) -> str:
    """Returns a version that the model's metadata lists. Raises NotApplicable if it lists none."""
    versions = json_object(s.http.get(model_path(model))).get("versions")
    if not isinstance(versions, list) or not versions:
        raise NotApplicable("the server does not version its models")
    return str(versions[-1])

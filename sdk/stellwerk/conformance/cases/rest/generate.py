"""The generate extension: plain JSON for models of text, answered once or as server-sent events."""

from __future__ import annotations

import json
from typing import Any

from stellwerk.conformance.cases.case import Area, Cases
from stellwerk.conformance.expect import (
    Mismatch,
    client_error,
    equal,
    failed,
    json_object,
    status,
    that,
)
from stellwerk.conformance.server.rest import Reply, model_path
from stellwerk.conformance.server.subject import Subject, Transport

CASES = Cases(Area.GENERATE, Transport.REST, "extension_generate.md", "generate")


def _generate(s: Subject, body: Any, how: str = "generate") -> Reply:
    return s.http.post(model_path(s.model("text"), how), body)


def events_of(reply: Reply) -> list[dict[str, Any]]:
    """Returns the JSON of each event. Raises Mismatch if the body is no stream of events."""
    kind = reply.headers.get("content-type", "").split(";")[0]
    that(kind == "text/event-stream", "text/event-stream", reply.brief())
    found = []
    for block in reply.body.decode().replace("\r\n", "\n").split("\n\n"):
        data = [line[5:].strip() for line in block.split("\n") if line.startswith("data:")]
        if data and data != ["[DONE]"]:
            try:
                found.append(json.loads("\n".join(data)))
            except ValueError:
                raise Mismatch("JSON in each event", block) from None
    return found


@CASES.specified("generate gives the text, the model and its version")
def _generate_text(s: Subject) -> None:
    reply = _generate(s, {"text_input": "hello"})
    status(reply, 200)
    body = json_object(reply)
    equal(body.get("text_output"), "hello", '"text_output"')
    equal(body.get("model_name"), s.model("text"), '"model_name"')
    that(isinstance(body.get("model_version"), str), 'a string "model_version"', body)


@CASES.specified("generate returns the id")
def _id(s: Subject) -> None:
    equal(json_object(_generate(s, {"id": "42", "text_input": "x"})).get("id"), "42", '"id"')


@CASES.specified("generate takes parameters that the model does not know")
def _parameters(s: Subject) -> None:
    reply = _generate(s, {"text_input": "x", "parameters": {"stream": False, "temperature": 0}})
    status(reply, 200)
    equal(json_object(reply).get("text_output"), "x", '"text_output"')


@CASES.specified("generate answers with content-type application/json")
def _content_type(s: Subject) -> None:
    kind = _generate(s, {"text_input": "x"}).headers.get("content-type", "").split(";")[0]
    equal(kind, "application/json", "content type")


@CASES.specified("generate_stream answers with server-sent events")
def _stream(s: Subject) -> None:
    reply = _generate(s, {"text_input": "hello"}, "generate_stream")
    status(reply, 200)
    equal([event.get("text_output") for event in events_of(reply)], ["hello"], "texts")


@CASES.specified("An error before the first event is plain JSON with an error status")
def _early_error(s: Subject) -> None:
    for how in ("generate", "generate_stream"):
        failed(_generate(s, {}, how))
        failed(s.http.post(model_path("conformance_nobody", how), {"text_input": "x"}))


@CASES.sensible("A request that is no object, or whose text is none, is a client error")
def _wrong(s: Subject) -> None:
    for body in (b"{", b"[]", b'{"text_input": {"a": 1}}'):
        client_error(
            s.http.post(
                model_path(s.model("text"), "generate"), body, {"content-type": "application/json"}
            )
        )


@CASES.sensible("generate asked of a model without text says so as a client error")
def _no_text_model(s: Subject) -> None:
    client_error(s.http.post(model_path(s.echo(), "generate"), {"text_input": "x"}))


def _count(s: Subject, count: int, how: str = "generate_stream") -> Reply:
    return s.http.post(model_path(s.model("count_up"), how), {"COUNT": count})


@CASES.specified("generate_stream gives each response of a decoupled model as an event of its own")
def _decoupled(s: Subject) -> None:
    equal([event.get("INDEX") for event in events_of(_count(s, 3))], [0, 1, 2], "INDEX")


@CASES.specified("An error after the first event is an event with an error")
def _late_error(s: Subject) -> None:
    events = events_of(_count(s, 13))
    equal(len(events), 3, "events")
    that(isinstance(events[-1].get("error"), str), "an error in the last event", events)


@CASES.specified("generate of a decoupled model that answers several times is an error")
def _generate_decoupled(s: Subject) -> None:
    failed(_count(s, 3, "generate"))

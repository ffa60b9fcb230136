"""Statistics, configuration, the model repository and shared memory over REST."""

from __future__ import annotations

from typing import Any

from stellwerk.conformance.cases.case import Area, Cases
from stellwerk.conformance.expect import NotApplicable, equal, failed, json_object, status, that
from stellwerk.conformance.server.rest import model_path
from stellwerk.conformance.server.subject import Subject, Transport
from stellwerk.conformance.server.waiting import eventually
from stellwerk.conformance.values import Tensor, echoed, sample

STATISTICS = Cases(Area.STATISTICS, Transport.REST, "extension_statistics.md", "statistics")
CONFIGURATION = Cases(
    Area.CONFIGURATION, Transport.REST, "extension_model_configuration.md", "model_configuration"
)
REPOSITORY = Cases(
    Area.REPOSITORY, Transport.REST, "extension_model_repository.md", "model_repository"
)
SHARED = Cases(Area.SHARED_MEMORY, Transport.REST, "extension_shared_memory.md")
_NOBODY = "conformance_nobody"
_DURATIONS = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
# It is unloaded and loaded again; other cases need it before and after.
_UNLOADED = "UINT8"


def statistics_of(s: Subject, model: str) -> dict[str, Any]:
    """Returns the statistics of the model's newest version."""
    reply = s.http.get(model_path(model, "stats"))
    status(reply, 200)
    found = json_object(reply).get("model_stats")
    that(isinstance(found, list) and found, '"model_stats" with the model', reply.brief())
    last: dict[str, Any] = list(found or [])[-1]
    that(last.get("name") == model, f"statistics of {model}", last)
    return last


@STATISTICS.specified("A model's statistics hold counts and durations")
def _shape(s: Subject) -> None:
    model = s.echo()
    s.infer(model, [sample("FP32")])
    found = statistics_of(s, model)
    for name in ("inference_count", "execution_count", "last_inference"):
        that(_number(found.get(name)), f'a number "{name}"', found)
    stats = found.get("inference_stats")
    that(isinstance(stats, dict), 'an object "inference_stats"', found)
    for name in _DURATIONS:
        duration = (stats or {}).get(name)
        whole = (
            isinstance(duration, dict)
            and _number(duration.get("count"))
            and _number(duration.get("ns"))
        )
        that(whole, f'"{name}" with "count" and "ns"', duration)


def _number(value: Any) -> bool:
    # JSON of 64-bit numbers: Triton writes numbers; proto3's own mapping writes strings.
    return type(value) is int and value >= 0


@STATISTICS.specified("An inference adds to inference_count and success; a failed one to fail")
def _counting(s: Subject) -> None:
    model = s.model("fails_on_13")
    good, bad = (Tensor("INPUT0", "INT64", (1, 1), [n]) for n in (1, 13))
    s.infer(model, [good])
    before = statistics_of(s, model)
    s.infer(model, [good])
    failed(s.post(model, [bad]))

    def look() -> None:
        after = statistics_of(s, model)
        count, earlier = after["inference_count"], before["inference_count"]
        that(count > earlier, "a higher inference_count", f"{count}, as before")
        for name in ("success", "fail"):
            count, earlier = (found["inference_stats"][name]["count"] for found in (after, before))
            that(count > earlier, f"a higher count of {name}", f"{count}, as before")

    eventually(look)


@STATISTICS.specified("GET /v2/models/stats lists all models")
def _all(s: Subject) -> None:
    model = s.echo()
    s.infer(model, [sample("FP32")])
    reply = s.http.get("/v2/models/stats")
    status(reply, 200)
    names = [entry.get("name") for entry in json_object(reply).get("model_stats", [])]
    that(model in names, f"{model} among the models", names)


@STATISTICS.sensible("Statistics of an unknown model are 404 or 400 with a reason")
def _unknown_statistics(s: Subject) -> None:
    reply = s.http.get(model_path(_NOBODY, "stats"))
    status(reply, 404, 400)
    failed(reply)


@CONFIGURATION.specified("A model's configuration names it, its inputs and its outputs")
def _configuration(s: Subject) -> None:
    model = s.echo()
    reply = s.http.get(model_path(model, "config"))
    status(reply, 200)
    body = json_object(reply)
    that(body.get("name") == model, f'"name" {model}', body)
    for kind, name in (("input", "INPUT0"), ("output", "OUTPUT0")):
        tensors = body.get(kind)
        first = tensors[0] if isinstance(tensors, list) and tensors else {}
        that(
            (first.get("name"), first.get("data_type")) == (name, "TYPE_FP32"),
            f"{kind} {name} of TYPE_FP32",
            tensors,
        )


@CONFIGURATION.convention(
    "max_batch_size is a number in the configuration", "perf_analyzer, tritonclient"
)
def _batch_size(s: Subject) -> None:
    body = json_object(s.http.get(model_path(s.echo(), "config")))
    that(_number(body.get("max_batch_size")), 'a number "max_batch_size"', body)


@CONFIGURATION.sensible("Configuration of an unknown model is 404 or 400 with a reason")
def _unknown_configuration(s: Subject) -> None:
    reply = s.http.get(model_path(_NOBODY, "config"))
    status(reply, 404, 400)
    failed(reply)


def _index(s: Subject, body: dict[str, Any]) -> list[dict[str, Any]]:
    reply = s.http.post("/v2/repository/index", body)
    status(reply, 200)
    found = reply.json()
    that(
        isinstance(found, list) and all(isinstance(x, dict) for x in found),
        "a list of objects",
        reply.brief(),
    )
    listed: list[dict[str, Any]] = found
    return listed


def _entry(s: Subject) -> dict[str, Any]:
    """Returns the index's entry of a model that was just called."""
    model = s.echo()
    s.infer(model, [sample("FP32")])
    entries = {entry.get("name"): entry for entry in _index(s, {})}
    that(model in entries, f"{model} in the index", sorted(map(str, entries)))
    return entries[model]


@REPOSITORY.specified("The index lists models with their state")
def _index_all(s: Subject) -> None:
    entry = _entry(s)
    that(isinstance(entry.get("state"), str), 'a string "state"', entry)


@REPOSITORY.convention("The state of a model that serves is READY", "Triton, model_lifecycle.cc")
def _index_state(s: Subject) -> None:
    equal(_entry(s).get("state"), "READY", "state")


@REPOSITORY.specified('The index with "ready" lists models that are ready alone')
def _index_ready(s: Subject) -> None:
    states = {str(entry.get("state")) for entry in _index(s, {"ready": True})}
    that(all(map(is_ready, states)), "READY alone", states)


def is_ready(state: str) -> bool:
    """Returns whether a model of this state serves; the spelling of the state is for a case of its
    own.
    """
    return state.rpartition(".")[2] == "READY"


@REPOSITORY.sensible("The index may be asked for with an empty body", "Triton")
def _index_empty(s: Subject) -> None:
    status(s.http.post("/v2/repository/index"), 200)


@REPOSITORY.specified("A model is unloaded, is then not READY, and is loaded again")
def _unload_and_load(s: Subject) -> None:
    model, path = s.echo(_UNLOADED), f"/v2/repository/models/{s.echo(_UNLOADED)}"
    status(s.http.post(f"{path}/unload", {}), 200)
    try:

        def look() -> None:
            states = [entry.get("state") for entry in _index(s, {}) if entry.get("name") == model]
            that(not any(is_ready(str(state)) for state in states), f"{model} not READY", states)

        eventually(look)
    finally:
        reply = s.http.post(f"{path}/load", {})
    status(reply, 200)
    tensor = sample(_UNLOADED)
    echoed(s.infer(model, [tensor]), tensor, "OUTPUT0")


@REPOSITORY.specified("A loaded model is loaded anew")
def _reload(s: Subject) -> None:
    model = s.echo(_UNLOADED)
    status(s.http.post(f"/v2/repository/models/{model}/load"), 200)
    echoed(s.infer(model, [sample(_UNLOADED)]), sample(_UNLOADED), "OUTPUT0")


@REPOSITORY.sensible("Loading an unknown model answers 404 or 400 with a reason")
def _load_unknown(s: Subject) -> None:
    reply = s.http.post(f"/v2/repository/models/{_NOBODY}/load", {})
    status(reply, 404, 400)
    failed(reply)


@REPOSITORY.sensible("Unloading an unknown model answers 404 or 400 with a reason")
def _unload_unknown(s: Subject) -> None:
    reply = s.http.post(f"/v2/repository/models/{_NOBODY}/unload", {})
    status(reply, 404, 400)
    failed(reply)


@SHARED.sensible("Shared memory that is not offered is refused: 501, 404 or 400")
def _not_offered(s: Subject) -> None:
    for kind in ("systemsharedmemory", "cudasharedmemory"):
        if kind.replace("shared", "_shared_") not in s.advertised:
            reply = s.http.post(
                f"/v2/{kind}/region/r/register", {"key": "/r", "offset": 0, "byte_size": 8}
            )
            status(reply, 501, 404, 400)
    if {"system_shared_memory", "cuda_shared_memory"} <= s.advertised:
        raise NotApplicable("the server offers it; that takes memory shared with its machine")


@SHARED.sensible("An input in a region that nobody registered is a client error, or 501")
def _unknown_region(s: Subject) -> None:
    where = {"shared_memory_region": "conformance_nowhere", "shared_memory_byte_size": 24}
    reply = s.post(s.echo(), [sample("FP32").json(data=None, parameters=where)])
    that(400 <= reply.status < 500 or reply.status == 501, "a client error, or 501", reply.brief())

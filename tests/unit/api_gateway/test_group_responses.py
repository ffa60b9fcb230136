"""The response to a member of a group is the one that it would get alone, byte for byte."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from services.api_gateway.http.response import HttpResponse
from services.api_gateway.open_inference.group_responses import GroupResponses
from services.api_gateway.open_inference.infer_request import OutputForm
from services.api_gateway.open_inference.infer_response import write_response
from services.api_gateway.upstream.replies import GroupReply
from stellwerk.job.v1 import work_pb2
from stellwerk.router.v1 import call_service_pb2 as messages
from stellwerk.wire.errors import ServiceError
from stellwerk.wire.open_inference import InferRequest
from stellwerk.wire.tensors import ALL_DATATYPES, ITEM_SIZES, join_bytes

TEXTS = st.one_of(st.binary(max_size=4), st.sampled_from([b"],[", b'"', b"setosa", b"\xff"]))


@st.composite
def answers(draw: Any) -> tuple[messages.AnswerGroup, OutputForm, dict[str, int] | None]:
    count = draw(st.integers(1, 5))
    answer = messages.AnswerGroup(
        ids=range(count), model_version="buckets/default/models/iris/versions/3"
    )
    names = draw(st.lists(st.sampled_from(["y", 'q"', "é", "z"]), max_size=3, unique=True))
    for name in names:
        datatype = draw(st.sampled_from(sorted(ALL_DATATYPES)))
        shape = draw(st.lists(st.integers(0, 2), max_size=3))
        elements = int(np.prod(shape, dtype=int)) * count
        if datatype == "BYTES":
            data = join_bytes(draw(st.lists(TEXTS, min_size=elements, max_size=elements)))
        elif datatype == "BOOL":
            data = bytes(draw(st.lists(st.booleans(), min_size=elements, max_size=elements)))
        else:
            size = elements * ITEM_SIZES[datatype]
            data = draw(st.binary(min_size=size, max_size=size))
        answer.reply.outputs.add(name=name, datatype=datatype, shape=shape, data=data)
    chosen = {name: draw(st.booleans()) for name in names if draw(st.booleans())}
    classes = {"y": 1} if names and draw(st.integers(0, 9)) == 0 else None
    return answer, OutputForm(draw(st.booleans()), chosen), classes


def outcome(write: Any) -> tuple[Any, ...]:
    try:
        response: HttpResponse = write()
    except ServiceError as error:
        return error.reason, error.message
    return response.status, response.body, response.content_type, response.headers


@settings(max_examples=400, deadline=None)
@given(answers(), st.sampled_from(["", "a-1", 'ü"\\']))
def test_members_get_what_they_would_get_alone(
    given: tuple[messages.AnswerGroup, OutputForm, dict[str, int] | None], id: str
) -> None:
    answer, form, classes = given
    group = GroupReply(answer)
    request = InferRequest("team:iris", "", id, work_pb2.WorkItem(), classes=classes)
    shared = InferRequest("team:iris", "", "", work_pb2.WorkItem(), classes=classes)
    responses = GroupResponses(shared, form, group)

    for index in range(group.count):
        own = outcome(lambda: responses.write(index, id))  # noqa: B023
        alone = outcome(lambda: write_response(request, form, GroupReply(answer).of(index)))  # noqa: B023
        assert own == alone

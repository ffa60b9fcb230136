"""A conformance model for Triton's Python backend; config.pbtxt beside it says which behaviour it
has.
"""

from __future__ import annotations

import json

import numpy as np
import triton_python_backend_utils as pb_utils

MAGIC = 13


class TritonPythonModel:
    """Serves one conformance model."""

    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.behaviour = config["parameters"]["behaviour"]["string_value"]
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.datatypes = [tensor["data_type"] for tensor in config["input"]]
        self.outputs = [tensor["name"] for tensor in config["output"]]

    def execute(self, requests):
        if self.behaviour == "count_up":
            for request in requests:
                self.count_up(request)
            return None
        return [self.answer(request) for request in requests]

    def answer(self, request):
        tensors = [pb_utils.get_input_tensor_by_name(request, name) for name in self.inputs]
        if self.behaviour == "add_sub":
            first, second = (tensor.as_numpy() for tensor in tensors)
            arrays = [first + second, first - second]
            answers = [
                pb_utils.Tensor(name, array)
                for name, array in zip(self.outputs, arrays, strict=True)
            ]
            return pb_utils.InferenceResponse(answers)
        if self.behaviour == "fails_on_13" and (tensors[0].as_numpy() == MAGIC).any():
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("the model fails on 13"))
        return pb_utils.InferenceResponse(list(map(echo, self.outputs, tensors, self.datatypes)))

    def count_up(self, request):
        sender = request.get_response_sender()
        count = int(pb_utils.get_input_tensor_by_name(request, "COUNT").as_numpy()[0])
        for index in range(2 if count == MAGIC else count):
            tensor = pb_utils.Tensor("INDEX", np.array([index], np.int32))
            sender.send(pb_utils.InferenceResponse([tensor]))
        if count == MAGIC:
            sender.send(
                pb_utils.InferenceResponse(error=pb_utils.TritonError("the model fails on 13"))
            )
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def echo(name, tensor, datatype):
    """Returns the tensor under another name; BF16 has no numpy type and goes by DLPack."""
    if datatype == "TYPE_BF16":
        return pb_utils.Tensor.from_dlpack(name, tensor)
    return pb_utils.Tensor(name, tensor.as_numpy())

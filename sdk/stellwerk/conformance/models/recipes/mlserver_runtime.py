"""The conformance models as a custom runtime of MLServer; model-settings.json says which behaviour
a model has.
"""

from __future__ import annotations

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceResponse, ResponseOutput

MAGIC = 13


class ConformanceRuntime(MLModel):
    """Serves one conformance model. What it does not check, MLServer leaves to runtimes and does
    not check either.
    """

    async def load(self):
        self.behaviour = self.settings.parameters.extra["behaviour"]
        return True

    async def predict(self, payload):
        given = {tensor.name: tensor for tensor in payload.inputs}
        missing = [spec.name for spec in self.settings.inputs if spec.name not in given]
        if missing:
            raise InferenceError(f"missing inputs: {missing}")
        tensors = [given[spec.name] for spec in self.settings.inputs]
        values = [decoded(tensor) for tensor in tensors]
        if self.behaviour == "add_sub":
            values = [values[0] + values[1], values[0] - values[1]]
        if self.behaviour == "fails_on_13" and (values[0] == MAGIC).any():
            raise InferenceError("the model fails on 13")
        names = [spec.name for spec in self.settings.outputs]
        return self.response(payload, map(encoded, names, tensors, values))

    def response(self, payload, outputs):
        version = self.version or None
        return InferenceResponse(
            id=payload.id, model_name=self.name, model_version=version, outputs=list(outputs)
        )

    async def predict_stream(self, payloads):
        async for payload in payloads:
            if self.behaviour != "count_up":
                yield await self.predict(payload)
                continue
            tensor = payload.inputs[0]
            count = int(NumpyCodec.decode_input(tensor)[0])
            for index in range(2 if count == MAGIC else count):
                yield self.response(
                    payload, [NumpyCodec.encode_output("INDEX", np.array([index], np.int32))]
                )
            if count == MAGIC:
                raise InferenceError("the model fails on 13")


def decoded(tensor):
    """Returns numbers as MLServer's own codec reads them, texts as they are."""
    return list(tensor.data) if tensor.datatype == "BYTES" else NumpyCodec.decode_input(tensor)


def encoded(name, tensor, value):
    """Returns the output of this name, of the kind of the input."""
    if tensor.datatype == "BYTES":
        return ResponseOutput(name=name, shape=tensor.shape, datatype="BYTES", data=value)
    return NumpyCodec.encode_output(name, value)

"""Calls a torch module: inputs in the signature's order, outputs named by the signature."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from services.runtime.formats.port import Array, Arrays, LoadedModel, Signature, in_order
from services.runtime.formats.torch import devices
from stellwerk.wire.errors import InvalidInput


class TorchModel(LoadedModel):
    """A module in eval mode on its device, which several threads may call at a time."""

    def __init__(
        self,
        module: Callable[..., Any],
        signatures: dict[str, Signature],
        *,
        memory_bytes: int,
        device: torch.device,
        threads: int,
    ) -> None:
        self._module: Callable[..., Any] | None = module
        self._signatures = signatures
        self._device = device
        self._threads = threads
        self.memory_bytes = memory_bytes
        self.device = str(device)

    def call(self, method: str, inputs: Arrays) -> dict[str, Array]:
        """Calls the module's forward.

        Raises InvalidInput for another method or other inputs, MemoryError when the device is full.
        """
        if method != "predict" or self._module is None:
            raise InvalidInput(
                f"a torch model has the method 'predict', not '{method[:64]}'", method=method[:64]
            )
        signature = self._signatures.get(method, Signature())
        names = [spec.name for spec in signature.inputs] or list(inputs)
        arrays = in_order(inputs, signature)
        # torch keeps this number per thread, and any worker thread may call.
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        try:
            with torch.inference_mode():
                tensors = [
                    devices.to_tensor(name, array, self._device)
                    for name, array in zip(names, arrays, strict=True)
                ]
                for index, spec in enumerate(signature.inputs):
                    if spec.datatype == "BF16":
                        # It came as float32, because numpy has no bfloat16.
                        tensors[index] = tensors[index].to(torch.bfloat16)
                return name_outputs(self._module(*tensors), signature)
        except torch.cuda.OutOfMemoryError as exc:
            raise MemoryError("the device is out of memory") from exc

    def close(self) -> None:
        """Frees the weights, also those on the device."""
        module, self._module = self._module, None
        if isinstance(module, torch.nn.Module):
            # An exported program is part of reference cycles; this frees its weights without a
            # garbage collection.
            module.to("meta")
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def name_outputs(answer: Any, signature: Signature) -> dict[str, Array]:
    """Returns the outputs by name, nested sequences flattened.

    Names are the signature's if it declares as many, else a mapping's own, else output_0, output_1…
    """
    declared = [spec.name for spec in signature.outputs]
    own = [str(name) for name in answer] if isinstance(answer, dict) else []
    parts = list(_flat(list(answer.values()) if isinstance(answer, dict) else answer))
    if len(declared) == len(parts) and set(declared) != set(own):
        names = declared
    else:
        names = (
            own if len(own) == len(parts) else [f"output_{index}" for index in range(len(parts))]
        )
    return {name: devices.to_array(_tensor(part)) for name, part in zip(names, parts, strict=True)}


def _flat(answer: Any) -> Iterator[Any]:
    if isinstance(answer, (tuple, list)):
        for part in answer:
            yield from _flat(part)
    elif answer is not None:
        yield answer


def _tensor(value: Any) -> torch.Tensor:
    return value if isinstance(value, torch.Tensor) else torch.as_tensor(value)

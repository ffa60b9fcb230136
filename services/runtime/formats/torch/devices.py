"""Chooses the devices of models and moves arrays to and from them."""

from __future__ import annotations

import threading

import torch

from services.runtime.formats.port import Array
from stellwerk.router.v1 import router_service_pb2 as router_pb2
from stellwerk.wire.errors import InvalidInput, RequirementUnmet

# Held while a torch model loads: torch's loaders and its exporter's passes keep global state.
LOADING = threading.Lock()


def accelerators() -> list[router_pb2.Accelerator]:
    """Returns the CUDA devices in the driver's order; memory is in bytes."""
    found = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        found.append(
            router_pb2.Accelerator(
                kind="cuda",
                name=properties.name,
                memory_bytes=properties.total_memory,
                compute_capability=f"{properties.major}.{properties.minor}",
            )
        )
    return found


def choose(device: str) -> torch.device:
    """Returns the device for "auto", "cpu", "cuda" or "cuda:N".

    "auto" and "cuda" take the CUDA device with the most free memory; without one, "auto" takes the
    CPU. Raises RequirementUnmet for a device that is not there.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "cpu" or (device == "auto" and count == 0):
        return torch.device("cpu")
    if device in ("auto", "cuda"):
        if count == 0:
            raise RequirementUnmet(
                "the model needs CUDA and this runtime sees no CUDA device", device=device
            )
        return torch.device(
            "cuda", max(range(count), key=lambda index: torch.cuda.mem_get_info(index)[0])
        )
    kind, _, index = device.partition(":")
    if kind != "cuda" or not index.isdigit() or int(index) >= count:
        raise RequirementUnmet(f"this runtime has no device '{device[:32]}'", device=device[:32])
    return torch.device("cuda", int(index))


def to_tensor(name: str, array: Array, device: torch.device) -> torch.Tensor:
    """Returns the array as a tensor on the device. Raises InvalidInput unless it holds numbers.

    Copies a read-only array, because torch has no read-only tensors.
    """
    if array.dtype.kind not in "biuf":
        raise InvalidInput(f"input '{name}' must hold numbers", tensor=name)
    tensor: torch.Tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
    return tensor.to(device)


def to_array(tensor: torch.Tensor) -> Array:
    """Returns the tensor as an array in main memory; bfloat16, which numpy lacks, as float32."""
    tensor = tensor.detach()
    if tensor.dtype is torch.bfloat16:
        tensor = tensor.float()
    array: Array = tensor.cpu().contiguous().numpy()
    return array


def footprint(module: torch.nn.Module) -> int:
    """Returns the bytes of the module's parameters and buffers."""
    tensors = [*module.parameters(), *module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

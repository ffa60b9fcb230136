"""The devices that torch sees, and which of them a model goes to. torch is imported by format
modules alone.
"""

from __future__ import annotations

import threading

import torch

from services.runtime.formats.port import Array
from stellwerk.router.v1 import router_service_pb2 as router_pb2
from stellwerk.wire.errors import InvalidInput, RequirementUnmet

# torch's loaders and its exporter's passes keep state of their own: one model at a time.
LOADING = threading.Lock()


def accelerators() -> list[router_pb2.Accelerator]:
    """The CUDA devices."""
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
    """The device for "auto", "cpu", "cuda" or "cuda:N". "auto" takes the CUDA device with the most
    free memory.
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
    """The array on the device. Copied when read-only: torch has no tensors that must not be
    written.
    """
    if array.dtype.kind not in "biuf":
        raise InvalidInput(f"input '{name}' must hold numbers", tensor=name)
    tensor: torch.Tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
    return tensor.to(device)


def to_array(tensor: torch.Tensor) -> Array:
    """The tensor as an array in main memory; bfloat16, which numpy does not have, as float32."""
    tensor = tensor.detach()
    if tensor.dtype is torch.bfloat16:
        tensor = tensor.float()
    array: Array = tensor.cpu().contiguous().numpy()
    return array


def footprint(module: torch.nn.Module) -> int:
    """Bytes of the module's parameters and buffers."""
    tensors = [*module.parameters(), *module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

"""The serving policy of a model, from the arguments of the SDK and the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stellwerk.client.errors import InvalidInput
from stellwerk.type.v1.serving_pb2 import ServingPolicy, WarmupCall
from stellwerk.type.v1.tensor_pb2 import MethodSignature

_FIELDS = [field.name for field in ServingPolicy.DESCRIPTOR.fields if field.name != "warmup"]
_TRUTHS = {"true": True, "yes": True, "false": False, "no": False}


def serving_policy(
    given: ServingPolicy | Mapping[str, Any] | None,
    warmup: Any,
    signature: Sequence[MethodSignature],
) -> ServingPolicy | None:
    """Returns the policy as the platform takes it, None for one without any field.

    `given` is a policy, or a mapping of its fields. `warmup` is a batch of inputs of the method
    "predict". Raises InvalidInput for a name that is no field and for a value of the wrong kind.
    """
    policy = ServingPolicy()
    if isinstance(given, ServingPolicy):
        policy.CopyFrom(given)
    else:
        for name, value in (given or {}).items():
            _set(policy, name, value)
    if warmup is not None:
        # Imported here, so that a policy without warm-up does not wait for numpy.
        from stellwerk.client import arrays

        known = next((one for one in signature if one.method == "predict"), None)
        policy.warmup.append(WarmupCall(method="predict", inputs=arrays.to_tensors(warmup, known)))
    return policy if policy.ByteSize() else None


def _set(policy: ServingPolicy, name: str, value: Any) -> None:
    if name not in _FIELDS:
        raise InvalidInput(f"serving knows no '{name}'; it knows {', '.join(_FIELDS)}", field=name)
    try:
        if name == "response_cache":
            policy.response_cache = (
                _TRUTHS[value.lower()] if isinstance(value, str) else bool(value)
            )
        elif name == "preferred_batch_sizes":
            sizes = value.split("+") if isinstance(value, str) else value
            policy.preferred_batch_sizes.extend(int(size) for size in sizes)
        else:
            setattr(policy, name, int(value))
    except (KeyError, TypeError, ValueError):
        raise InvalidInput(f"serving.{name} cannot be {value!r}", field=name) from None

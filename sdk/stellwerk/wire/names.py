"""Resource names (AIP-122) and the ids in them; ids are checked here and nowhere else."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stellwerk.wire.errors import InvalidInput

DEFAULT_BUCKET = "default"
# 1 to 63 letters and digits, with . _ - inside: safe in URLs, file names, queues, metric labels.
_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_VERSION = re.compile(r"[1-9][0-9]{0,17}")
_ALIAS = re.compile(r"[A-Za-z](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")


def check_id(value: str, what: str) -> str:
    """Returns the id. Raises InvalidInput, with the rules, unless it is one; `what` names it."""
    if not _ID.fullmatch(value) or ".." in value:
        raise InvalidInput(
            f"{what} must be 1 to 63 letters, digits, '.', '_' or '-', beginning and ending with a"
            " letter or digit",
            field=what,
        )
    return value


def check_alias(value: str) -> str:
    """Returns the alias. Raises InvalidInput unless it is one.

    An alias begins with a letter, so it cannot be a version.
    """
    if not _ALIAS.fullmatch(value):
        raise InvalidInput(
            "an alias must be 1 to 63 letters, digits, '_' or '-', beginning with a letter",
            field="alias",
        )
    return value


def check_version(value: str) -> int:
    """Returns the version's number. Raises InvalidInput unless it is a whole number from 1."""
    if not _VERSION.fullmatch(value):
        raise InvalidInput("a version is a whole number from 1", field="version")
    return int(value)


@dataclass(frozen=True, slots=True)
class ModelName:
    """A model, with a version's number, with an alias, or alone."""

    bucket: str
    model: str
    version: int | None = None
    alias: str | None = None

    @property
    def parent(self) -> str:
        """The model's name, buckets/{bucket}/models/{model}."""
        return f"buckets/{self.bucket}/models/{self.model}"

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.parent}/versions/{self.version}"
        if self.alias is not None:
            return f"{self.parent}/aliases/{self.alias}"
        return self.parent


def bucket_name(bucket: str) -> str:
    """Returns buckets/{bucket}. Raises InvalidInput unless `bucket` is an id."""
    return f"buckets/{check_id(bucket, 'bucket')}"


def parse_bucket(name: str) -> str:
    """Returns the id in buckets/{bucket}. Raises InvalidInput for any other name."""
    parts = name.split("/")
    if len(parts) != 2 or parts[0] != "buckets":
        raise InvalidInput("a bucket is named buckets/{bucket}", field="name")
    return check_id(parts[1], "bucket")


def parse_model(name: str) -> ModelName:
    """Parses the name of a model, version or alias. Raises InvalidInput for any other name."""
    parts = name.split("/")
    if len(parts) not in (4, 6) or parts[0] != "buckets" or parts[2] != "models":
        raise InvalidInput("a model is named buckets/{bucket}/models/{model}", field="name")
    bucket, model = check_id(parts[1], "bucket"), check_id(parts[3], "model")
    if len(parts) == 4:
        return ModelName(bucket, model)
    if parts[4] == "versions":
        return ModelName(bucket, model, version=check_version(parts[5]))
    if parts[4] == "aliases":
        return ModelName(bucket, model, alias=check_alias(parts[5]))
    raise InvalidInput("a model has versions/{version} and aliases/{alias}", field="name")


def parse_upload(name: str) -> tuple[ModelName, str]:
    """Returns the model and the upload's id in buckets/{bucket}/models/{model}/uploads/{upload}.

    Raises InvalidInput for any other name.
    """
    parts = name.split("/")
    if len(parts) != 6 or parts[4] != "uploads":
        raise InvalidInput(
            "an upload is named buckets/{bucket}/models/{model}/uploads/{upload}", field="name"
        )
    return parse_model("/".join(parts[:4])), check_id(parts[5], "upload")


def parse_inference_name(name: str, version: str = "") -> ModelName:
    """Parses a model's name of the Open Inference Protocol, with a version or alias if given.

    "iris" is in the default bucket, "team:iris" in bucket "team". Raises InvalidInput.
    """
    bucket, colon, model = name.rpartition(":")
    bucket = bucket if colon else DEFAULT_BUCKET
    check_id(bucket, "bucket")
    check_id(model, "model")
    if not version:
        return ModelName(bucket, model)
    if version.isdigit():
        return ModelName(bucket, model, version=check_version(version))
    return ModelName(bucket, model, alias=check_alias(version))


def inference_name(name: ModelName) -> str:
    """Returns the model's name in the Open Inference Protocol, without a version."""
    return name.model if name.bucket == DEFAULT_BUCKET else f"{name.bucket}:{name.model}"


def parse_single(name: str, collection: str, what: str) -> str:
    """Returns the id in {collection}/{id}, such as principals/{principal}.

    Raises InvalidInput for any other name; `what` is the resource's noun.
    """
    parts = name.split("/")
    if len(parts) != 2 or parts[0] != collection:
        raise InvalidInput(f"{what} is named {collection}/{{{what}}}", field="name")
    return check_id(parts[1], what)


def bucket_of(resource: str) -> str:
    """Returns the bucket that a permission on this resource needs, "" if it is in no bucket.

    A malformed name is in no bucket, so only callers with platform-wide permissions reach the
    handler, which tells them what is wrong with it. Never raises.
    """
    parts = resource.split("/")
    if len(parts) >= 2 and parts[0] == "buckets" and _ID.fullmatch(parts[1]):
        return parts[1]
    return ""

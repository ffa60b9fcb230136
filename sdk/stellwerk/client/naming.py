"""Resource names of the platform from names as people write them, "iris" or "bucket/iris"."""

from __future__ import annotations

from stellwerk.client.errors import InvalidInput
from stellwerk.wire import names


def model_name(
    text: str, bucket: str, version: int | str | None = None, alias: str | None = None
) -> names.ModelName:
    """Returns the model that "iris", "bucket/iris" or a full resource name stands for.

    "iris" is in `bucket`. Raises InvalidInput for any other text, and for both a version and an
    alias.
    """
    if version is not None and alias is not None:
        raise InvalidInput("give a version or an alias, not both", field="version")
    if text.startswith("buckets/"):
        named = names.parse_model(text)
    else:
        parent, slash, model = text.rpartition("/")
        named = names.ModelName(
            names.check_id(parent if slash else bucket, "bucket"), names.check_id(model, "model")
        )
    if version is not None:
        return names.ModelName(named.bucket, named.model, version=names.check_version(str(version)))
    if alias is not None:
        return names.ModelName(named.bucket, named.model, alias=names.check_alias(alias))
    return named


def bucket_name(text: str) -> str:
    """Returns the resource name of a bucket, given that or its id alone."""
    return names.bucket_name(text.removeprefix("buckets/"))


def principal_name(text: str) -> str:
    """Returns the resource name of a principal, given that or its id alone."""
    return f"principals/{names.check_id(text.removeprefix('principals/'), 'principal')}"


def short_name(resource: str) -> str:
    """Returns "iris" for a model of the default bucket, "bucket/iris" for one of another."""
    named = names.parse_model(resource)
    return named.model if named.bucket == names.DEFAULT_BUCKET else f"{named.bucket}/{named.model}"

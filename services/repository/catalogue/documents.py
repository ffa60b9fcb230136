"""Parses resource names, builds the keys of MongoDB documents, and converts resources between
documents and messages. Pure.

A model's key is "{bucket}/{model}", a version's "{bucket}/{model}/{number of 18 digits}". Ids hold
no "/", so the keys below one parent are exactly those from "{parent}/" to "{parent}0" ("0" is the
character after "/").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from services.repository.catalogue.filters import Term
from services.repository.mongo import CHUNK_BYTES
from stellwerk.repository.v1 import repository_service_pb2 as pb
from stellwerk.wire import names
from stellwerk.wire.errors import InvalidInput
from stellwerk.wire.names import ModelName

Document = dict[str, Any]
# Sorts after every printable text, so it ends the range of texts that begin with a prefix.
_LAST = "\U0010ffff"


def model_name(name: str) -> ModelName:
    """Parses the name of a model. Raises InvalidInput, also for the name of a version or alias."""
    parsed = names.parse_model(name)
    if parsed.version is not None or parsed.alias is not None:
        raise InvalidInput("a model is named buckets/{bucket}/models/{model}", field="name")
    return parsed


def version_name(name: str) -> tuple[ModelName, int]:
    """Parses the name of a version; returns its model and number. Raises InvalidInput."""
    parsed = names.parse_model(name)
    if parsed.version is None:
        raise InvalidInput(
            "a version is named buckets/{bucket}/models/{model}/versions/{version}", field="name"
        )
    return ModelName(parsed.bucket, parsed.model), parsed.version


def alias_name(name: str) -> tuple[ModelName, str]:
    """Parses the name of an alias; returns its model and id. Raises InvalidInput."""
    parsed = names.parse_model(name)
    if parsed.alias is None:
        raise InvalidInput(
            "an alias is named buckets/{bucket}/models/{model}/aliases/{alias}", field="name"
        )
    return ModelName(parsed.bucket, parsed.model), parsed.alias


def model_key(name: ModelName) -> str:
    """Returns the key of a model's document."""
    return f"{name.bucket}/{name.model}"


def version_key(model: str, version: int) -> str:
    """Returns the key of a version's document; `model` is its model's key."""
    return f"{model}/{version:018d}"


def children(parent: str) -> dict[str, str]:
    """Returns the condition on keys that selects everything below `parent`, at any depth."""
    return {"$gte": f"{parent}/", "$lt": f"{parent}0"}


def condition(term: Term) -> Document:
    """Returns a filter's term as a query, in which the caller's text is a value, no operator."""
    wanted = {"$gte": term.value, "$lt": term.value + _LAST} if term.prefix else {"$eq": term.value}
    if term.field == "label":
        return {"labels": {"$elemMatch": {"k": {"$eq": term.label}, "v": wanted}}}
    return {{"name": "id", "format": "format"}[term.field]: wanted}


def conditions(terms: Iterable[Term]) -> Document:
    """Returns a query that selects documents which meet all terms."""
    every = [condition(term) for term in terms]
    return {"$and": every} if every else {}


def labels(given: Mapping[str, str]) -> list[Document]:
    """Returns labels as a list of pairs: a label's key may hold dots, a document's must not."""
    return [{"k": key, "v": value} for key, value in sorted(given.items())]


def time(value: datetime) -> Timestamp:
    """Returns the moment as a protobuf timestamp."""
    stamp = Timestamp()
    stamp.FromDatetime(value)
    return stamp


def to_bucket(document: Document) -> pb.Bucket:
    """Reads a bucket from its document."""
    return pb.Bucket(
        name=f"buckets/{document['_id']}",
        description=document["description"],
        create_time=time(document["created"]),
        creator=document["creator"],
    )


def to_model(document: Document) -> pb.Model:
    """Reads a model from its document."""
    return pb.Model(
        name=f"buckets/{document['bucket']}/models/{document['id']}",
        latest_version=document["latest"],
        create_time=time(document["created"]),
        update_time=time(document["updated"]),
        aliases={alias: kept["version"] for alias, kept in document["aliases"].items()},
        format=document["format"],
        labels={label["k"]: label["v"] for label in document["labels"]},
        description=document["description"],
    )


def to_version(document: Document) -> pb.ModelVersion:
    """Reads a version from its document: the message exactly as it was created."""
    return pb.ModelVersion.FromString(document["message"])


def to_alias(model: ModelName, alias: str, kept: Document) -> pb.Alias:
    """Reads an alias from `kept`, its entry in the model's document."""
    return pb.Alias(
        name=f"{model.parent}/aliases/{alias}",
        version=kept["version"],
        etag=kept["etag"],
        update_time=time(kept["updated"]),
        updater=kept["updater"],
    )


def newest(version: pb.ModelVersion) -> Document:
    """Returns the fields of a model's document that repeat its newest version."""
    return {
        "latest": version.version,
        "format": version.format,
        "labels": labels(version.labels),
        "description": version.description,
    }


@dataclass(frozen=True, slots=True)
class NewDocuments:
    """The documents that a new version adds or changes."""

    # The fields of its model's document.
    newest: Document
    version: Document
    # GridFS's record of the file with its bytes.
    file: Document


def of_new_version(version: pb.ModelVersion, model: str, file: str, upload: str) -> NewDocuments:
    """Returns the documents of a new version of the `model` with this key; `file` and `upload` are
    ids.
    """
    return NewDocuments(
        newest(version), _version_document(version, model, file, upload), _file(version, file)
    )


def _version_document(version: pb.ModelVersion, model: str, file: str, upload: str) -> Document:
    """Returns the whole message in bytes, and the fields that queries select by."""
    return {
        "_id": version_key(model, version.version),
        "model": model,
        "id": str(version.version),
        "format": version.format,
        "labels": labels(version.labels),
        "sha256": version.sha256,
        "size": version.size_bytes,
        "file": file,
        "upload": upload,
        "message": version.SerializeToString(),
    }


def _file(version: pb.ModelVersion, file: str) -> Document:
    return {
        "_id": file,
        "filename": version.name,
        "length": version.size_bytes,
        "chunkSize": CHUNK_BYTES,
        "uploadDate": version.create_time.ToDatetime(UTC),
        "metadata": {"sha256": version.sha256},
    }

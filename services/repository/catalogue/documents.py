"""Resources as the database keeps them: keys that sort as listings do, and the way from document to
message. Pure.

A model's key is "{bucket}/{model}", a version's "{bucket}/{model}/{number of 18 digits}". Ids hold
no "/", so the keys of one parent are exactly those between "{parent}/" and "{parent}0" ("0" follows
"/").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from services.repository.catalogue.filters import Term
from stellwerk.repository.v1 import repository_service_pb2 as pb
from stellwerk.wire.names import ModelName

Document = dict[str, Any]
# No printable text has it, so it ends every range of texts with one beginning.
_LAST = "\U0010ffff"


def model_key(name: ModelName) -> str:
    """The key of the model of this name."""
    return f"{name.bucket}/{name.model}"


def version_key(model: str, version: int) -> str:
    """The key of a version of the model with this key."""
    return f"{model}/{version:018d}"


def children(parent: str) -> dict[str, str]:
    """The condition on keys that holds for everything directly or indirectly under `parent`."""
    return {"$gte": f"{parent}/", "$lt": f"{parent}0"}


def condition(term: Term) -> Document:
    """The term as a query in which the caller's text is a value and nothing else."""
    wanted = {"$gte": term.value, "$lt": term.value + _LAST} if term.prefix else {"$eq": term.value}
    if term.field == "label":
        return {"labels": {"$elemMatch": {"k": {"$eq": term.label}, "v": wanted}}}
    return {{"name": "id", "format": "format"}[term.field]: wanted}


def conditions(terms: Iterable[Term]) -> Document:
    """All terms together as a query."""
    every = [condition(term) for term in terms]
    return {"$and": every} if every else {}


def labels(given: Mapping[str, str]) -> list[Document]:
    """Labels as pairs: their keys may hold dots, which a document's own keys must not."""
    return [{"k": key, "v": value} for key, value in sorted(given.items())]


def time(value: datetime) -> Timestamp:
    """The moment as messages carry it."""
    stamp = Timestamp()
    stamp.FromDatetime(value)
    return stamp


def to_bucket(document: Document) -> pb.Bucket:
    """The bucket kept in this document."""
    return pb.Bucket(
        name=f"buckets/{document['_id']}",
        description=document["description"],
        create_time=time(document["created"]),
        creator=document["creator"],
    )


def to_model(document: Document) -> pb.Model:
    """The model kept in this document."""
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
    """The version kept in this document, exactly as it was when it came to be."""
    return pb.ModelVersion.FromString(document["message"])


def to_alias(model: ModelName, alias: str, kept: Document) -> pb.Alias:
    """One alias out of its model's document."""
    return pb.Alias(
        name=f"{model.parent}/aliases/{alias}",
        version=kept["version"],
        etag=kept["etag"],
        update_time=time(kept["updated"]),
        updater=kept["updater"],
    )


def newest(version: pb.ModelVersion) -> Document:
    """What a model's document repeats of its newest version."""
    return {
        "latest": version.version,
        "format": version.format,
        "labels": labels(version.labels),
        "description": version.description,
    }


def version_document(version: pb.ModelVersion, model: str, file: str, upload: str) -> Document:
    """The document of a new version: what is looked for by fields, everything as the message
    itself.
    """
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


def file_document(version: pb.ModelVersion, file: str, chunk_bytes: int) -> Document:
    """The record that GridFS keeps of the version's file."""
    return {
        "_id": file,
        "filename": version.name,
        "length": version.size_bytes,
        "chunkSize": chunk_bytes,
        "uploadDate": version.create_time.ToDatetime(UTC),
        "metadata": {"sha256": version.sha256},
    }

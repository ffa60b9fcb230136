"""Buckets, the unit that access is granted on."""

from __future__ import annotations

import builtins

from stellwerk.client.naming import bucket_name
from stellwerk.client.resources.resource import Noun, S, pages
from stellwerk.client.session.plan import Plan, call, operation
from stellwerk.repository.v1 import repository_service_pb2 as pb


class Buckets(Noun[S]):
    """The buckets that the caller may see."""

    @operation
    def create(self, bucket: str, *, description: str = "") -> Plan[pb.Bucket]:
        """Creates a bucket. Raises AlreadyExists if there is one of that name."""
        request = pb.CreateBucketRequest(
            bucket=pb.Bucket(name=bucket_name(bucket), description=description)
        )
        return (yield from call(request, pb.CreateBucketResponse)).bucket

    @operation
    def list(self, *, limit: int | None = None) -> Plan[builtins.list[pb.Bucket]]:
        """The buckets by name."""
        return (
            yield from pages(
                pb.ListBucketsRequest(), pb.ListBucketsResponse, lambda page: page.buckets, limit
            )
        )

    @operation
    def drop(self, bucket: str) -> Plan[None]:
        """Deletes a bucket that holds no models."""
        yield from call(pb.DeleteBucketRequest(name=bucket_name(bucket)), pb.DeleteBucketResponse)

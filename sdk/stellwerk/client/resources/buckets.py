"""Buckets, the unit that access is granted on."""

from __future__ import annotations

import builtins

from stellwerk.client.naming import bucket_name
from stellwerk.client.resources.resource import Resource, S, pages
from stellwerk.client.session.operation import operation
from stellwerk.client.session.plan import Plan, call
from stellwerk.repository.v1 import repository_service_pb2 as pb


class Buckets(Resource[S]):
    """The buckets that the caller may see. An argument `bucket` is an id, such as "team-a"."""

    @operation
    def create(self, bucket: str, *, description: str = "") -> Plan[pb.Bucket]:
        """Creates a bucket and returns it. Raises AlreadyExists if there is one of that name."""
        request = pb.CreateBucketRequest(
            bucket=pb.Bucket(name=bucket_name(bucket), description=description)
        )
        return (yield from call(request, pb.CreateBucketResponse)).bucket

    @operation
    def list(self, *, limit: int | None = None) -> Plan[builtins.list[pb.Bucket]]:
        """Returns the buckets in the order of their names, or the first `limit` of them."""
        return (
            yield from pages(
                pb.ListBucketsRequest(), pb.ListBucketsResponse, lambda page: page.buckets, limit
            )
        )

    @operation
    def drop(self, bucket: str) -> Plan[None]:
        """Deletes a bucket. Raises NotReady while it holds models, BucketNotFound if
        there is none.
        """
        yield from call(pb.DeleteBucketRequest(name=bucket_name(bucket)), pb.DeleteBucketResponse)

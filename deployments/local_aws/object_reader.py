"""S3 as SageMaker reads it for a job or a model server: with the rights of their role, and no request for each object.

A dataset is thousands of objects, and every trial of a study reads them all. They lie in this very process: fetched
over HTTP, signed and parsed on both sides, they take longer than the training does.
"""

from dataclasses import dataclass
from typing import Any

from moto.iam.access_control import PermissionResult
from moto.s3.exceptions import MissingBucket
from moto.s3.models import FakeBucket, s3_backends

from deployments.local_aws.account import Account
from deployments.local_aws.protocol import AwsError

_PROTOCOL = "rest-xml"


@dataclass(frozen=True)
class ObjectSummary:
    """An object in a list."""

    key: str
    etag: str


class ObjectReader:
    """Lists and reads objects as a role, whose every use is checked and recorded as that of a request is.

    Raises:
        AwsError: The role does not exist or does not trust SageMaker.
    """

    def __init__(self, account: Account, role_arn: str) -> None:
        self._account = account
        self._access_key_id = account.assume_as_service(role_arn, "sagemaker.amazonaws.com").access_key_id

    def list(self, bucket: str, prefix: str) -> list[ObjectSummary]:
        """Return what lies below a prefix, by key.

        Raises:
            AwsError: As S3 says it.
        """
        self._check("ListObjectsV2", bucket, {"Query": {"list-type": "2", "prefix": prefix}})
        found = self._backend.list_objects(self._bucket(bucket), prefix, None, None, None)[0]
        return sorted((ObjectSummary(one.name, one.etag) for one in found), key=lambda one: one.key)

    def read(self, bucket: str, key: str, etag: str | None = None) -> bytes:
        """Return an object's content; with an ETag, only if it is still that one.

        Raises:
            AwsError: As S3 says it.
        """
        self._check("GetObject", bucket, {"Key": key, "Query": {}})
        policy = self._bucket(bucket).get_permission("s3:GetObject", f"arn:aws:s3:::{bucket}/{key}")
        if policy == PermissionResult.DENIED:
            code, message = "AccessDenied", "Access Denied"
            raise AwsError(code, message, 403)
        found = self._backend.get_object(bucket, key)
        if found is None:
            code, message = "NoSuchKey", "The specified key does not exist."
            raise AwsError(code, message, 404)
        if etag not in (None, found.etag):
            code, message = "PreconditionFailed", "At least one of the pre-conditions you specified did not hold"
            raise AwsError(code, message, 412)
        return bytes(found.value)

    def _check(self, operation: str, bucket: str, members: dict[str, Any]) -> None:
        authorization = self._account.authorization
        if authorization is not None:
            caller = authorization.find(self._access_key_id)
            authorization.check(caller, "s3", operation, {"Bucket": bucket, "Headers": {}, **members}, _PROTOCOL)

    def _bucket(self, name: str) -> FakeBucket:
        try:
            bucket: FakeBucket = self._backend.get_bucket(name)
        except MissingBucket as error:
            raise AwsError(error.code, "The specified bucket does not exist", 404) from error
        return bucket

    @property
    def _backend(self) -> Any:
        return s3_backends[self._account.account_id]["aws"]

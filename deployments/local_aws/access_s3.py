"""S3: which actions on which resources an operation needs.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

from deployments.local_aws.access_requests import Request, Rule
from deployments.local_aws.policy_evaluation import Access
from deployments.local_aws.protocol import AwsError

# Each makes another operation of a request, and moto asks for them in an order of its own.
_SUBRESOURCES = frozenset(
    {
        "accelerate",
        "acl",
        "attributes",
        "cors",
        "delete",
        "encryption",
        "inventory",
        "legal-hold",
        "lifecycle",
        "list-type",
        "location",
        "logging",
        "notification",
        "object-lock",
        "ownershipControls",
        "partNumber",
        "policy",
        "policyStatus",
        "publicAccessBlock",
        "replication",
        "restore",
        "retention",
        "select",
        "tagging",
        "uploadId",
        "uploads",
        "versioning",
        "versions",
        "website",
    }
)
_OF_A_PART = {"uploadId", "partNumber"}
_WITH_VERSION = ("GetObject", "DeleteObject", "GetObjectTagging", "PutObjectTagging", "DeleteObjectTagging")
_OBJECT_ACTIONS = {
    "AbortMultipartUpload": "AbortMultipartUpload",
    "CompleteMultipartUpload": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "DeleteObject": "DeleteObject",
    "DeleteObjectTagging": "DeleteObjectTagging",
    "GetObject": "GetObject",
    "GetObjectAcl": "GetObjectAcl",
    "GetObjectAttributes": "GetObject",
    "GetObjectTagging": "GetObjectTagging",
    "HeadObject": "GetObject",
    "ListParts": "ListMultipartUploadParts",
    "PutObject": "PutObject",
    "PutObjectAcl": "PutObjectAcl",
    "PutObjectTagging": "PutObjectTagging",
    "SelectObjectContent": "GetObject",
    "UploadPart": "PutObject",
}
_BUCKET_ACTIONS = {
    "CreateBucket": "CreateBucket",
    "DeleteBucket": "DeleteBucket",
    "DeleteBucketEncryption": "PutEncryptionConfiguration",
    "DeleteBucketLifecycle": "PutLifecycleConfiguration",
    "DeleteBucketPolicy": "DeleteBucketPolicy",
    "DeletePublicAccessBlock": "PutBucketPublicAccessBlock",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    "GetBucketLocation": "GetBucketLocation",
    "GetBucketPolicy": "GetBucketPolicy",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "HeadBucket": "ListBucket",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "ListObjectVersions": "ListBucketVersions",
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "PutBucketAcl": "PutBucketAcl",
    "PutBucketEncryption": "PutEncryptionConfiguration",
    "PutBucketLifecycleConfiguration": "PutLifecycleConfiguration",
    "PutBucketPolicy": "PutBucketPolicy",
    "PutBucketVersioning": "PutBucketVersioning",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
}
_LISTED_BY = {"prefix": "s3:prefix", "delimiter": "s3:delimiter", "max-keys": "s3:max-keys"}


def s3_members(environ: Mapping[str, Any], uri_members: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a request decides about access: bucket, key, query and headers, not the body.

    Raises:
        AwsError: InvalidArgument: the query asks for two things at once.
    """
    query = parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    names = [name for name, _value in query]
    asked = _SUBRESOURCES.intersection(names)
    if (len(asked) > 1 and asked != _OF_A_PART) or len(set(names)) != len(names):
        code = "InvalidArgument"
        message = f"Conflicting query string parameters: {', '.join(sorted(asked) or sorted(names))}"
        raise AwsError(code, message)
    headers = {name[5:].lower().replace("_", "-"): value for name, value in environ.items() if name[:5] == "HTTP_"}
    return {**uri_members, "Query": dict(query), "Headers": headers}


def _object(action: str) -> Rule:
    def rule(request: Request) -> Iterable[Access]:
        versioned = action in _WITH_VERSION and "versionId" in request.members["Query"]
        yield Access(f"s3:{action}Version" if versioned else f"s3:{action}", _object_arn(request), _listing({}))
        if action == "PutObject":
            yield from _beside(request)

    return rule


def _beside(request: Request) -> Iterable[Access]:
    """Return what writing needs besides: for tags, for a list of who may read, and for the object to copy."""
    headers = request.members["Headers"]
    if "x-amz-tagging" in headers:
        yield Access("s3:PutObjectTagging", _object_arn(request), _listing({}))
    if any(name == "x-amz-acl" or name.startswith("x-amz-grant-") for name in headers):
        yield Access("s3:PutObjectAcl", _object_arn(request), _listing({}))


def _copy(request: Request) -> Iterable[Access]:
    source, _, parameters = request.members["Headers"]["x-amz-copy-source"].partition("?")
    action = "s3:GetObjectVersion" if "versionId=" in parameters else "s3:GetObject"
    yield Access(action, f"arn:aws:s3:::{unquote(source).lstrip('/')}", _listing({}))
    yield from _object("PutObject")(request)


def _delete_objects(request: Request) -> Iterable[Access]:
    for item in request.members["Delete"]["Objects"]:
        action = "s3:DeleteObjectVersion" if "VersionId" in item else "s3:DeleteObject"
        yield Access(action, f"{_bucket_arn(request)}/{item['Key']}", _listing({}))


def _bucket(action: str) -> Rule:
    def rule(request: Request) -> Iterable[Access]:
        yield Access(f"s3:{action}", _bucket_arn(request), _listing(request.members["Query"]))

    return rule


def _list_buckets(_request: Request) -> Iterable[Access]:
    yield Access("s3:ListAllMyBuckets", "*", _listing({}))


def _bucket_arn(request: Request) -> str:
    return f"arn:aws:s3:::{request.members['Bucket']}"


def _object_arn(request: Request) -> str:
    return f"{_bucket_arn(request)}/{request.members['Key']}"


def _listing(query: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    return {key: (query[name],) if name in query else () for name, key in _LISTED_BY.items()}


S3_RULES: Mapping[str, Callable[[Request], Iterable[Access]]] = {
    **{operation: _object(action) for operation, action in _OBJECT_ACTIONS.items()},
    **{operation: _bucket(action) for operation, action in _BUCKET_ACTIONS.items()},
    "CopyObject": _copy,
    "DeleteObjects": _delete_objects,
    "ListBuckets": _list_buckets,
    "UploadPartCopy": _copy,
}

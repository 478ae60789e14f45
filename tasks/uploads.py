"""Datasets on their way into S3: only what is not there yet is sent, and the manifest comes last."""

import base64
import hashlib
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed

from botocore.exceptions import ClientError

from tasks.aws.clients import client
from tasks.aws.errors import DatasetError, SettingsError, is_code
from tasks.contracts import DatasetSpec, UploadResult, Value
from tasks.data.manifests import Manifest, build_manifest, channel_manifests, files_prefix, key_of
from tasks.data.pictures import CheckedImage, InspectedDataset
from tasks.data.prefixes import S3Object, S3Prefix, build_prefix_manifest, parse_uri
from tasks.data.sentences import quantity
from tasks.retries import retried
from tasks.runs import Progress, run_logger

# 800 small files at 25 ms of latency: one after the other 34 a second, 32 at a time 371.
_THREADS = 32
_CONTENT_TYPES = {".png": "image/png"}
_PROGRESS_KEY = "upload-progress"


class _Target(Value):
    """A bucket that was found to be ours; S3 refuses every request should it have changed hands since."""

    bucket: str
    account_id: str

    def put(self, key: str, body: bytes, content_type: str) -> None:
        """Store an object; S3 compares the checksum with what arrives."""
        client("s3").put_object(
            Bucket=self.bucket,
            Key=key,
            Body=body,
            ContentType=content_type,
            ChecksumSHA256=base64.b64encode(hashlib.sha256(body).digest()).decode(),
            ExpectedBucketOwner=self.account_id,
        )

    def objects_under(self, prefix: str) -> Iterator[S3Object]:
        """List what is there."""
        return _objects(Bucket=self.bucket, Prefix=prefix, ExpectedBucketOwner=self.account_id)


@retried("check {bucket}")
def check_bucket(bucket: str) -> None:
    """Make sure that a bucket is ours, before anything is downloaded or inspected for it.

    Raises:
        SettingsError: It does not exist, belongs to another account, or may not be used with these credentials.
    """
    _target(bucket)


@retried("upload {inspected.name}")
def upload_dataset(inspected: InspectedDataset, bucket: str) -> UploadResult:
    """Send the pictures that are not in the bucket yet, then the manifests.

    Safe to retry and to repeat: what has arrived is not sent again, and there is no manifest before all has.

    Raises:
        SettingsError: The bucket is not ours; nothing was sent.
        DatasetError: A file was changed since the inspection.
    """
    started = time.monotonic()
    target = _target(bucket)
    manifest = build_manifest(inspected, bucket)
    missing = _missing(inspected, target)
    run_logger().info("%d of %s to send", len(missing), quantity(len(manifest.files), "picture"))
    _send_all(missing, target)
    # Written anew each time, which heals a damaged one; same digest means same content, so no reader is misled.
    for key, document in channel_manifests(manifest).items():
        target.put(key, document.encode(), "application/json")
    is_new = _put_manifest(manifest, target)
    return UploadResult(
        dataset=manifest.dataset,
        files_sent=len(missing),
        bytes_sent=sum(image.size_bytes for image in missing.values()),
        seconds=time.monotonic() - started,
        is_new=is_new,
    )


@retried("register {spec.source}")
def register_prefix(spec: DatasetSpec, bucket: str) -> UploadResult:
    """Describe a dataset that lies in S3 already; no picture is sent, only the manifest, into our bucket.

    Raises:
        SettingsError: Our bucket is not ours.
        DatasetError: The prefix cannot be read, is empty, or is not fit for training.
    """
    started = time.monotonic()
    source = parse_uri(spec.source)
    target = _target(bucket)
    manifest = build_prefix_manifest(source, _listing(source), bucket)
    is_new, seconds = _put_manifest(manifest, target), time.monotonic() - started
    return UploadResult(dataset=manifest.dataset, files_sent=0, bytes_sent=0, seconds=seconds, is_new=is_new)


def _target(bucket: str) -> _Target:
    account_id = client("sts").get_caller_identity()["Account"]
    try:
        client("s3").head_bucket(Bucket=bucket, ExpectedBucketOwner=account_id)
    except ClientError as error:
        if is_code(error, "404", "NoSuchBucket"):
            msg = f"There is no bucket {bucket}: name the one of the foundation stack; nothing was sent"
        elif is_code(error, "403", "AccessDenied"):
            msg = (
                f"The bucket {bucket} is not ours: it belongs to another account than {account_id}, or these "
                "credentials may not use it; name the one of the foundation stack, nothing was sent"
            )
        else:
            raise
        raise SettingsError(msg) from error
    return _Target(bucket=bucket, account_id=account_id)


def _missing(inspected: InspectedDataset, target: _Target) -> dict[str, CheckedImage]:
    """Return by key the pictures that the bucket does not have in full."""
    sizes = {item.key: item.size_bytes for item in target.objects_under(files_prefix(inspected.name))}
    wanted = {key_of(inspected.name, image): image for image in inspected.images}
    return {key: image for key, image in wanted.items() if sizes.get(key) != image.size_bytes}


def _send_all(images: Mapping[str, CheckedImage], target: _Target) -> None:
    progress = Progress(_PROGRESS_KEY, f"Upload of {quantity(len(images), 'picture')}")
    pool = ThreadPoolExecutor(_THREADS)
    try:
        sending = [pool.submit(_send, key, image, target) for key, image in images.items()]
        for done, sent in enumerate(as_completed(sending), start=1):
            sent.result()
            progress.update(done / len(images))
    finally:  # also when the run is cancelled: what is in flight ends, what waits does not start
        pool.shutdown(cancel_futures=True)


def _send(key: str, image: CheckedImage, target: _Target) -> None:
    body = image.path.read_bytes() if image.path.is_file() else b""
    if hashlib.sha256(body).hexdigest() != image.sha256:
        msg = f"The file {image.path} was changed or removed after its inspection: run again when nobody writes there"
        raise DatasetError(msg)
    target.put(key, body, _CONTENT_TYPES.get(image.path.suffix.lower(), "image/jpeg"))


def _put_manifest(manifest: Manifest, target: _Target) -> bool:
    """Write the manifest, and return whether there was none of this version."""
    key = parse_uri(manifest.dataset.manifest_s3_uri).prefix.rstrip("/")
    is_new = not any(item.key == key for item in target.objects_under(key))
    target.put(key, manifest.model_dump_json(indent=1).encode(), "application/json")
    return is_new


def _listing(source: S3Prefix) -> list[S3Object]:
    try:
        return list(_objects(Bucket=source.bucket, Prefix=source.prefix))
    except ClientError as error:
        if is_code(error, "NoSuchBucket"):
            msg = f"There is no bucket {source.bucket}: check the URI {source}"
        elif is_code(error, "AccessDenied", "AllAccessDisabled"):
            msg = (
                f"The bucket {source.bucket} may not be listed with these credentials: allow s3:ListBucket for {source}"
            )
        else:
            raise
        raise DatasetError(msg) from error


def _objects(**request: str) -> Iterator[S3Object]:
    for page in client("s3").get_paginator("list_objects_v2").paginate(**request):
        for item in page.get("Contents", []):
            yield S3Object(key=item["Key"], size_bytes=item["Size"], etag=item["ETag"])

"""Objects between S3 and a job's folder, by the rights of the job's role."""

import contextlib
import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError

from deployments.local_aws.account import Account
from deployments.local_aws.object_reader import ObjectReader
from deployments.local_aws.protocol import AwsError

_S3_ERRORS = (ClientError, BotoCoreError, Boto3Error)

_Read = TypeVar("_Read")
_log = logging.getLogger(__name__)


class DownloadError(Exception):
    """Input data could not be had; the text is what SageMaker would give as the job's FailureReason."""


class UploadError(Exception):
    """What a job left could not be sent to S3."""


@dataclass(frozen=True)
class Source:
    """One object, and where in the channel's folder it belongs."""

    bucket: str
    key: str
    etag: str
    place: str


class ObjectStore:
    """S3 as a job sees it.

    Args:
        account: Whose objects they are.
        role_arn: The job's role.

    Raises:
        AwsError: The role does not exist or does not trust SageMaker.
    """

    def __init__(self, account: Account, role_arn: str) -> None:
        self._reader, self._s3 = ObjectReader(account, role_arn), account.client("s3", role_arn)

    def download_channel(self, channel: Mapping[str, Any], folder: Path, host_index: int, host_count: int) -> None:
        """Bring a channel's objects into a folder; of a sharded one, those of this host.

        Raises:
            DownloadError: There is nothing, something is missing, or it may not be read.
        """
        source = channel["DataSource"]["S3DataSource"]
        folder.mkdir(parents=True, exist_ok=True)
        objects = self._reading(source["S3Uri"], lambda: self._objects(source))
        if source.get("S3DataDistributionType") == "ShardedByS3Key":
            objects = sorted(objects, key=lambda item: item.key)[host_index::host_count]
        self._fetch_all(source["S3Uri"], objects, folder)

    def download_prefix(self, uri: str, folder: Path) -> None:
        """Bring all below a prefix into a folder; nothing there is fine.

        Raises:
            DownloadError: It may not be read.
        """
        objects = self._reading(uri, lambda: self._listed(uri))
        self._fetch_all(uri, objects, folder)

    def download_file(self, uri: str, target: Path) -> None:
        """Bring one object.

        Raises:
            DownloadError: It is missing or may not be read.
        """
        bucket, key = split_uri(uri)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._reading(uri, lambda: target.write_bytes(self._reader.read(bucket, key)))

    def upload_file(self, path: Path, uri: str) -> None:
        """Send one file.

        Raises:
            UploadError: The service does not take it.
        """
        bucket, key = split_uri(uri)
        try:
            self._s3.upload_file(str(path), bucket, key)
        except _S3_ERRORS as error:
            msg = f"ClientError: Artifact upload failed: {uri}: {error}"
            raise UploadError(msg) from error

    def _fetch_all(self, uri: str, objects: list[Source], folder: Path) -> None:
        def fetch() -> None:
            for item in objects:
                self._fetch(item, folder)

        self._reading(uri, fetch)

    def _reading(self, uri: str, read: Callable[[], _Read]) -> _Read:
        try:
            return read()
        except (AwsError, OSError) as error:  # OSError: two keys want one place, or a name is too long
            msg = f"ClientError: Data download failed: {uri}: {error}"
            raise DownloadError(msg) from error

    def _objects(self, source: Mapping[str, Any]) -> list[Source]:
        if source.get("S3DataType", "S3Prefix") == "ManifestFile":
            return self._named_in(source["S3Uri"])
        found = self._listed(source["S3Uri"])
        if not found:
            msg = (
                f'ClientError: Data download failed: No S3 objects found under S3 URL "{source["S3Uri"]}" given in '
                "input data source. Please ensure that the bucket exists in the selected region, that objects exist "
                "under that S3 prefix, and that the role has s3:ListBucket permissions on the bucket."
            )
            raise DownloadError(msg)
        return found

    def _named_in(self, manifest_uri: str) -> list[Source]:
        """Return what a manifest names: [{"prefix": "s3://bucket/some/"}, "relative/key", ...]."""
        bucket, key = split_uri(manifest_uri)
        prefix, names = _parsed(self._reader.read(bucket, key), manifest_uri)
        there = {item.key: item for item in self._listed(prefix)}
        own_bucket, own_prefix = split_uri(prefix)
        missing = [name for name in names if own_prefix + name not in there]
        if missing:
            msg = (
                f"ClientError: Data download failed: {len(missing)} keys that {manifest_uri} names do not exist, "
                f"first s3://{own_bucket}/{own_prefix}{missing[0]}"
            )
            raise DownloadError(msg)
        return [Source(own_bucket, own_prefix + name, there[own_prefix + name].etag, name) for name in names]

    def _listed(self, uri: str) -> list[Source]:
        bucket, prefix = split_uri(uri)
        # A prefix may end within a name: places are relative to the last folder in it.
        parent = prefix.rpartition("/")[0] + "/" if "/" in prefix else ""
        return [
            Source(bucket, item.key, item.etag, _place(item.key, prefix, parent))
            for item in self._reader.list(bucket, prefix)
            if not item.key.endswith("/")
        ]

    def _fetch(self, item: Source, folder: Path) -> None:
        target = folder / _checked(item.place)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(self._reader.read(item.bucket, item.key, item.etag))


def _parsed(manifest: bytes, uri: str) -> tuple[str, list[str]]:
    """Return the prefix and the names in a manifest."""
    try:
        first, *names = json.loads(manifest)
        prefix = first["prefix"]
    except (ValueError, TypeError, KeyError) as error:
        msg = (
            f'ClientError: Data download failed: {uri} is no manifest, which is [{{"prefix": "s3://..."}}, "key", ...]'
        )
        raise DownloadError(msg) from error
    if not all(isinstance(name, str) for name in (prefix, *names)):
        msg = f"ClientError: Data download failed: {uri} names something that is no string"
        raise DownloadError(msg)
    return prefix, names


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key, or prefix, of an s3:// URI."""
    parts = urlsplit(uri, allow_fragments=False)
    return parts.netloc, parts.path.lstrip("/")


def _place(key: str, prefix: str, parent: str) -> str:
    if key.startswith(prefix.rstrip("/") + "/"):
        return key[len(prefix.rstrip("/")) + 1 :]
    return key[len(parent) :]


def _checked(place: str) -> PurePosixPath:
    path = PurePosixPath(place)
    if path.is_absolute() or ".." in path.parts:
        msg = f"ClientError: Data download failed: the key {place!r} would leave the folder of the channel"
        raise DownloadError(msg)
    return path


class CheckpointSync:
    """Keeps a prefix in S3 like a folder, every few seconds until closed, so that what was killed can go on.

    What is in the folders at the beginning is taken to be in S3 already.
    """

    def __init__(self, store: ObjectStore, folders: Iterable[Path], uri: str, every_seconds: float) -> None:
        self._store, self._folders, self._uri = store, list(folders), uri.rstrip("/")
        self._sent = {path: state for path, _name, state in self._files()}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(every_seconds,), daemon=True, name="checkpoints")
        self._thread.start()

    def close(self) -> None:
        """Send what has changed since, and end.

        Raises:
            UploadError: The service does not take it.
        """
        self._closing.set()
        self._thread.join()
        self._sync()

    def _run(self, every_seconds: float) -> None:
        while not self._closing.wait(every_seconds):
            try:
                self._sync()
            except UploadError as error:
                _log.warning("Checkpoints are sent again later: %s", error)

    def _sync(self) -> None:
        for path, name, state in self._files():
            if self._sent.get(path) != state:
                try:
                    self._store.upload_file(path, f"{self._uri}/{name}")
                except FileNotFoundError:
                    continue  # replaced or removed while we looked
                self._sent[path] = state

    def _files(self) -> Iterator[tuple[Path, str, tuple[int, int]]]:
        for folder in self._folders:
            for path in sorted(folder.rglob("*")):
                with contextlib.suppress(FileNotFoundError):
                    state = path.stat()
                    if path.is_file():
                        yield path, path.relative_to(folder).as_posix(), (state.st_mtime_ns, state.st_size)

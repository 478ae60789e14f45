"""Download a large file: resumed after a broken connection, size checked, in place only when it is whole."""

import http.client
import logging
import shutil
from http import HTTPStatus
from pathlib import Path
from typing import IO
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from tasks.aws.errors import DatasetError

_TIMEOUT_SECONDS = 60
_CHUNK_BYTES = 1 << 20
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
# The download and, beside it, what is unpacked from it.
_DISK_PER_BYTE = 2

_log = logging.getLogger(__name__)


class DownloadInterruptedError(DatasetError, ConnectionError):
    """A download broke off; what has arrived is kept, and trying again goes on from there."""


def download(url: str, target: Path, size_bytes: int) -> None:
    """Download a file of a known size; what an earlier call left in `<target>.part` is not fetched again.

    Raises:
        DatasetError: The address is not https, has no such file or one of another size, or the disk is too small.
        DownloadInterruptedError: The connection broke; the next call goes on where it did.
    """
    if target.exists() and target.stat().st_size == size_bytes:
        return
    _check_scheme(url)
    _check_space(target.parent, size_bytes)
    _log.info("Downloading %s bytes from %s, once", f"{size_bytes:,}", url)
    part = target.with_name(f"{target.name}.part")
    if not part.exists() or part.stat().st_size != size_bytes:
        _receive(url, part, size_bytes)
    _tag_of(part).unlink(missing_ok=True)
    part.replace(target)


def _receive(url: str, part: Path, size_bytes: int) -> None:
    try:
        with build_opener(_SafeRedirects).open(_request(url, part), timeout=_TIMEOUT_SECONDS) as response:
            resumed = response.status == HTTPStatus.PARTIAL_CONTENT
            _check_size(url, _whole_size(response.headers, resumed=resumed), size_bytes)
            _tag_of(part).write_text(response.headers.get("ETag", ""))
            with part.open("ab" if resumed else "wb") as file:
                _copy(response, file, size_bytes)
    except HTTPError as error:
        _refuse(url, error, part)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, DownloadInterruptedError):
            raise
        raise _interrupted(url, part, size_bytes, str(error)) from error
    if part.stat().st_size < size_bytes:
        raise _interrupted(url, part, size_bytes, "the server closed the connection")


def _request(url: str, part: Path) -> Request:
    request = Request(url)  # noqa: S310 - the scheme was checked
    tag = _tag_of(part).read_text().strip() if _tag_of(part).exists() else ""
    # Without the tag nobody could tell whether the rest belongs to the same file.
    if tag and part.exists():
        request.add_header("Range", f"bytes={part.stat().st_size}-")
        request.add_header("If-Range", tag)
    return request


def _copy(response: IO[bytes], file: IO[bytes], size_bytes: int) -> None:
    while file.tell() < size_bytes and (chunk := response.read(min(_CHUNK_BYTES, size_bytes - file.tell()))):
        file.write(chunk)


def _whole_size(headers: http.client.HTTPMessage, *, resumed: bool) -> int | None:
    text = headers.get("Content-Range", "").rpartition("/")[2] if resumed else headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def _check_size(url: str, actual: int | None, expected: int) -> None:
    if actual is not None and actual != expected:
        msg = f"The file at {url} has {actual:,} bytes and not the {expected:,} of the known dataset: it has changed"
        raise DatasetError(msg)


def _refuse(url: str, error: HTTPError, part: Path) -> None:
    msg = f"The download of {url} was refused: {error.code} {error.reason}"
    if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        part.unlink(missing_ok=True)  # what is here is no part of what is there; the next try begins anew
    elif error.code < HTTPStatus.INTERNAL_SERVER_ERROR and error.code != HTTPStatus.TOO_MANY_REQUESTS:
        raise DatasetError(msg) from error
    raise DownloadInterruptedError(msg) from error


def _interrupted(url: str, part: Path, size_bytes: int, reason: str) -> DownloadInterruptedError:
    received = part.stat().st_size if part.exists() else 0
    return DownloadInterruptedError(
        f"The download of {url} broke off at {received:,} of {size_bytes:,} bytes ({reason}): run again to go on"
    )


def _check_space(folder: Path, size_bytes: int) -> None:
    needed, free = size_bytes * _DISK_PER_BYTE, shutil.disk_usage(folder).free
    if free < needed:
        msg = (
            f"The download takes {needed:,} bytes with what is unpacked from it, and {folder} has {free:,} free: "
            "make room, or set SAGEMAKER_FLOWS_CACHE to a folder on another disk"
        )
        raise DatasetError(msg)


def _check_scheme(url: str) -> None:
    address = urlsplit(url)
    if address.scheme != "https" and not (address.scheme == "http" and address.hostname in _LOOPBACK):
        msg = f"Datasets are downloaded over https only, not from {url}"
        raise DatasetError(msg)


def _tag_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")


class _SafeRedirects(HTTPRedirectHandler):
    """Follows redirects, but none that leaves https."""

    def redirect_request(  # noqa: PLR0917 - urllib's signature
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> Request | None:
        _check_scheme(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)

"""What a command writes: files on its instance, followed into CloudWatch Logs, then copied to S3, as its role."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError

from deployments.local_aws.log_streams import LogStream

_MOST_EVENT_BYTES = 200_000

_log = logging.getLogger(__name__)


class OutputFile:
    """stdout or stderr of a command.

    Args:
        path: Where the command writes it.
        make_stream: Returns its log stream, which is made with the first line; None without CloudWatch Logs.
    """

    def __init__(self, path: Path, make_stream: Callable[[], LogStream] | None) -> None:
        self.path = path
        self._make_stream = make_stream
        self._stream: LogStream | None = None
        self._sent = 0
        path.touch()

    def follow(self, *, ended: bool = False) -> None:
        """Pass on what is new: whole lines, and at the end the rest.

        As the agent does it, an event holds all the lines since the last one; the very last loses its newline.
        """
        if self._make_stream is None:
            return
        with self.path.open("rb") as file:
            file.seek(self._sent)
            while part := _whole_lines(file.read(_MOST_EVENT_BYTES), ended=ended):
                self._sent += len(part)
                file.seek(self._sent)
                self._add(part[:-1] if ended and part.endswith(b"\n") else part)

    def close(self) -> None:
        """Return when all that was passed on has arrived."""
        if self._stream is not None:
            self._stream.close()

    def head(self, characters: int) -> str:
        """Return the first characters of it."""
        with self.path.open("rb") as file:
            return file.read(4 * characters).decode("utf-8", "replace")[:characters]

    def upload(self, s3: Any, bucket: str, key: str) -> None:
        """Copy it to S3 if there is anything in it; whatever goes wrong there does not change the command's outcome."""
        if not self.path.stat().st_size:
            return
        try:
            s3.upload_file(str(self.path), bucket, key)
        except (Boto3Error, BotoCoreError, ClientError) as error:
            _log.warning("s3://%s/%s could not be written: %s", bucket, key, error)

    def _add(self, part: bytes) -> None:
        if self._stream is None and self._make_stream is not None:
            self._stream = self._make_stream()
        if self._stream is not None:
            self._stream.add(part.decode("utf-8", "replace").replace("\r\n", "\n"))


def _whole_lines(part: bytes, *, ended: bool) -> bytes:
    """Return the part up to its last newline; all of it when nothing more will come, or one line fills an event."""
    cut = part.rfind(b"\n") + 1
    if cut:
        return part[:cut]
    return part if ended or len(part) == _MOST_EVENT_BYTES else b""

"""Serve a WSGI application on loopback from a thread: waitress, with S3's header names and an end."""

import errno
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import waitress.server
from moto.core.request import PRESERVED_HEADER_NAMES_ENVIRON_KEY, environ_key_for_header
from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.task import WSGITask

HOST = "127.0.0.1"
THREADS = 32
_METADATA_NAME = re.compile(rb"^x-amz-meta-[^:\r\n]+", re.IGNORECASE | re.MULTILINE)
MAX_OBJECT_BYTES = 5 * 1024**3  # S3's limit for one PUT


class PortInUseError(OSError):
    """The port asked for is taken."""

    def __init__(self, port: int) -> None:
        super().__init__(errno.EADDRINUSE, f"Port {port} is in use: give another --port, or none for a free one")
        self.port = port

    def __str__(self) -> str:
        return str(self.strerror)


@contextmanager
def listening(application: Any, port: int = 0) -> Iterator[str]:
    """Serve the application; yields its URL.

    Raises:
        PortInUseError: The port is taken; 0 finds a free one.
    """
    server = _bind(application, port)
    thread = threading.Thread(target=server.run, name="local-aws", daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.effective_port}"
    finally:
        _close(server)
        thread.join()


def _bind(application: Any, port: int) -> Any:
    try:
        server = waitress.server.create_server(
            application,
            host=HOST,
            port=port,
            threads=THREADS,
            connection_limit=1000,
            max_request_body_size=MAX_OBJECT_BYTES,
            recv_bytes=256 * 1024,  # the default of 8 kB makes large uploads slow
            asyncore_use_poll=True,  # select() ends at descriptor 1024
            ident=None,
        )
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise PortInUseError(port) from error
    server.channel_class = _Channel
    return server


def _close(server: Any) -> None:
    # First the requests that are being answered: they use the trigger, which the loop's end closes.
    server.task_dispatcher.shutdown(cancel_pending=True, timeout=2)
    # The loop ends when nothing is left to watch. Closing must happen in its own thread, which the trigger wakes.
    server.trigger.pull_trigger(lambda: wasyncore.close_all(server._map, ignore_all=True))  # noqa: SLF001


class _Parser(HTTPRequestParser):  # type: ignore[misc] # waitress has no types
    """Reads requests as S3's clients send them.

    waitress drops headers whose names have an underscore, as S3's metadata may, and they are signed; and it waits for
    ever for the body of an empty object, since botocore sends Expect: 100-continue with that too.
    """

    metadata: dict[str, tuple[str, str]]

    def parse_header(self, header_plus: bytes) -> None:
        super().parse_header(header_plus)
        self.metadata = {}
        for line in header_plus.decode("latin-1").split("\r\n")[1:]:
            name, _, value = line.partition(":")
            if "_" in name and name.lower().startswith("x-amz-meta-"):
                self.metadata[environ_key_for_header(name)] = (name, value.strip(" \t"))
        if not self.chunked and self.content_length == 0:
            self.expect_continue = False


class _Task(WSGITask):  # type: ignore[misc] # waitress has no types
    """Hands them on, with the names as sent where moto looks for them; answers with them in S3's lower case."""

    def get_environment(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environment()
        environ.update({key: value for key, (_name, value) in self.request.metadata.items()})
        environ[PRESERVED_HEADER_NAMES_ENVIRON_KEY] = {
            key: name for key, (name, _value) in self.request.metadata.items()
        }
        return environ

    def build_response_header(self) -> bytes:
        # waitress capitalises every name, and a client takes the name for the key.
        header: bytes = super().build_response_header()
        return _METADATA_NAME.sub(lambda match: match[0].lower(), header)


class _Channel(HTTPChannel):  # type: ignore[misc] # waitress has no types
    parser_class = _Parser
    task_class = _Task

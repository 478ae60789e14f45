"""One model server: a package from S3, unpacked, and the process that answers for it, as AWS's Ray Serve image would.

The image starts Ray and runs the application that config.yaml at the package's root names. The local AWS reads the same
config.yaml and serves the ASGI application that its `args.asgi_app` names ("module:factory") with uvicorn: the same
answers, without the half minute and the two gigabytes of Ray.
https://aws.github.io/deep-learning-containers/ray/deployment/sagemaker/
"""

import http.client
import socket
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from deployments.local_aws.account import Account
from deployments.local_aws.archives import unpack
from deployments.local_aws.containers import Container, clean_environment
from deployments.local_aws.object_store import DownloadError, ObjectStore
from deployments.local_aws.requirements import unmet_requirements

_HOST = "127.0.0.1"
_PING_SECONDS = 0.05
_PING_TIMEOUT_SECONDS = 2.0
_WORDS = 8
_GRACE_SECONDS = 5.0
_HTTP_OK = 200


class StartError(Exception):
    """The server did not come up; the text is what it says itself."""


class ModelServer:
    """A model server in a folder of its own.

    Args:
        account: Whose it is.
        model: The model's description.
        folder: Where its package is unpacked and its process lives.
        on_line: Called with every line that it writes.
    """

    def __init__(
        self, account: Account, model: Mapping[str, Any], folder: Path, on_line: Callable[[str], None]
    ) -> None:
        self._account, self._model, self._folder, self._on_line = account, model, folder, on_line
        self._container: Container | None = None
        self._port = 0
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()
        self._in_flight = 0
        self._closed = threading.Event()

    @property
    def in_flight(self) -> int:
        """Requests that it is answering just now."""
        return self._in_flight

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._container is not None and self._container.returncode is None

    def prepare(self) -> list[str]:
        """Bring and unpack the package, and return the command that serves it.

        Raises:
            StartError: It cannot be had, is no package, or is one that the local AWS cannot serve.
        """
        package = self._folder / "model"
        if not package.exists():
            self._download(package)
        unmet = unmet_requirements(package / "code" / "requirements.txt")
        if unmet:
            msg = f"code/requirements.txt asks for {', '.join(unmet)}, which this machine's Python does not have"
            raise StartError(msg)
        return [sys.executable, "-m", "uvicorn", "--factory", _asgi_app(package), "--host", _HOST, "--no-access-log"]

    def start(self, deadline_seconds: float) -> None:
        """Start the process and return when it answers /ping.

        Raises:
            StartError: It died, or did not answer in time.
        """
        command = self.prepare()
        self._port = _free_port()
        package = self._folder / "model"
        variables = {
            **self._account.role_environment(self._model["ExecutionRoleArn"]),
            **self._model["PrimaryContainer"].get("Environment", {}),
            "SAGEMAKER_BASE_DIR": str(self._folder),
            "SM_MODEL_DIR": str(package),
            "PYTHONPATH": f"{package}:{package / 'code'}",
        }
        environment = clean_environment(self._folder, variables)
        self._container = Container([*command, "--port", str(self._port)], environment, package, self._on_line)
        self._await_ping(self._container, deadline_seconds)

    def invoke(self, body: bytes, headers: Mapping[str, str], timeout_seconds: float) -> tuple[int, str, bytes]:
        """Post a request and return status, content type and body of the answer.

        Raises:
            OSError: The server is gone, or did not answer in time.
            http.client.HTTPException: It answered something that is no HTTP.
        """
        with self._lock:
            self._in_flight += 1
        try:
            return self._post(body, headers, timeout_seconds)
        finally:
            with self._lock:
                self._in_flight -= 1

    def stop(self) -> None:
        """End the process, after the requests that it is answering."""
        self._closed.set()
        deadline = time.monotonic() + _GRACE_SECONDS
        while self._in_flight and time.monotonic() < deadline:
            time.sleep(_PING_SECONDS)
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
        if self._container:
            self._container.stop(_GRACE_SECONDS)

    def _download(self, package: Path) -> None:
        role = self._model["ExecutionRoleArn"]
        uri = self._model["PrimaryContainer"]["ModelDataUrl"]
        archive = self._folder / "model.tar.gz"
        try:
            ObjectStore(self._account.client("s3", role), self._account.root / "cache").download_file(uri, archive)
        except DownloadError as error:
            msg = f"Failed to download model data for the container from {uri}: {error}"
            raise StartError(msg) from error
        try:
            unpack(archive, package)
        except (tarfile.TarError, OSError, EOFError) as error:
            msg = f"{uri} is not a tar.gz that can be unpacked: {error}"
            raise StartError(msg) from error

    def _await_ping(self, container: Container, deadline_seconds: float) -> None:
        deadline = time.monotonic() + deadline_seconds
        while not self._closed.is_set():
            if container.returncode is not None:
                container.wait()
                said = " ".join(container.tail[-_WORDS:]) or "it wrote nothing"
                msg = f"The container ended with exit code {container.returncode} before it answered /ping: {said}"
                raise StartError(msg)
            if self._pings():
                return
            if time.monotonic() >= deadline:
                said = " ".join(container.tail[-_WORDS:])
                msg = f"The container did not pass the ping health check in {deadline_seconds:.0f} s: {said}"
                raise StartError(msg)
            time.sleep(_PING_SECONDS)
        msg = "The endpoint was deleted before the container answered /ping"
        raise StartError(msg)

    def _pings(self) -> bool:
        connection = http.client.HTTPConnection(_HOST, self._port, timeout=_PING_TIMEOUT_SECONDS)
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().status == _HTTP_OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _post(self, body: bytes, headers: Mapping[str, str], timeout_seconds: float) -> tuple[int, str, bytes]:
        connection = self._connection()
        connection.timeout = timeout_seconds
        if connection.sock:
            connection.sock.settimeout(timeout_seconds)
        try:
            connection.request("POST", "/invocations", body, dict(headers))
            response = connection.getresponse()
            answer = response.status, response.headers.get("Content-Type", "application/octet-stream"), response.read()
        except BaseException:
            connection.close()
            raise
        with self._lock:
            self._idle.append(connection)
        return answer

    def _connection(self) -> http.client.HTTPConnection:
        with self._lock:
            while self._idle:
                connection = self._idle.pop()
                if connection.sock and not _is_readable(connection.sock):
                    return connection
                connection.close()  # the server closed it while it was idle
        return http.client.HTTPConnection(_HOST, self._port)


def _asgi_app(package: Path) -> str:
    """Return the ASGI factory that a package's config.yaml names.

    Raises:
        StartError: There is none.
    """
    try:
        config = yaml.safe_load((package / "config.yaml").read_text(encoding="utf-8"))
        factory = config["applications"][0]["args"]["asgi_app"]
    except (OSError, yaml.YAMLError, KeyError, IndexError, TypeError) as error:
        msg = (
            "The local AWS serves packages for the Ray Serve image whose config.yaml names an ASGI factory in "
            f"applications[0].args.asgi_app; this one does not ({error!r})"
        )
        raise StartError(msg) from error
    return str(factory)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _is_readable(sock: socket.socket) -> bool:
    """Tell whether an idle connection has something to read: only its end can be that."""
    sock.settimeout(0)
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True

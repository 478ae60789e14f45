"""One model server: a package from S3, unpacked, and the process that answers for it, as AWS's Ray Serve image would.

The image starts Ray and runs the application that config.yaml at the package's root names. The local AWS reads the same
config.yaml and serves the ASGI application that its `args.asgi_app` names ("module:factory") with uvicorn: the same
answers, without the half minute and the two gigabytes of Ray.
https://aws.github.io/deep-learning-containers/ray/deployment/sagemaker/
"""

import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from deployments.local_aws.account import Account
from deployments.local_aws.archives import ArchiveError, unpack
from deployments.local_aws.connections import Answer, Connections
from deployments.local_aws.containers import Container, clean_environment
from deployments.local_aws.object_store import DownloadError, ObjectStore
from deployments.local_aws.protocol import AwsError
from deployments.local_aws.requirements import unmet_requirements

_SERVER = Path(__file__).with_name("asgi_server.py")
_HOST = "127.0.0.1"
_BACKLOG = 1024
_PING_SECONDS = 0.05
_PING_TIMEOUT_SECONDS = 2.0
_WORDS = 8


class StartError(Exception):
    """The server did not come up; the text is what it says itself."""


class ModelServer:
    """A model server in a folder of its own.

    Args:
        account: Whose it is.
        model: The model's description.
        folder: Where its package is unpacked and its process lives.
        on_line: Called with every line that it writes.
        memory_mb: How much of its own data its process may have in memory; None for as much as there is.
    """

    def __init__(
        self,
        account: Account,
        model: Mapping[str, Any],
        folder: Path,
        on_line: Callable[[str], None],
        *,
        memory_mb: int | None = None,
    ) -> None:
        self._account, self._model, self._folder, self._on_line = account, model, folder, on_line
        self._memory_mb = memory_mb
        self.package = folder / "model"
        self.idle_since = time.monotonic()  # while nothing is in flight
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._in_flight = 0
        self._connections: Connections | None = None
        self.container: Container | None = None

    @property
    def in_flight(self) -> int:
        """Requests that it has been chosen for and has not answered."""
        return self._in_flight

    @property
    def alive(self) -> bool:
        """Whether its process runs, and is to go on."""
        return self.container is not None and self.container.returncode is None and not self._closed.is_set()

    def start(self, deadline_seconds: float) -> None:
        """Bring the package, start the process and return when it answers /ping.

        Raises:
            StartError: The package cannot be had or served, or the process died or did not answer in time.
        """
        factory = self._prepare()
        with self._lock:
            if self._closed.is_set():
                msg = "The endpoint was deleted before the container was started"
                raise StartError(msg)
            with socket.create_server((_HOST, 0), backlog=_BACKLOG) as listener:
                self._connections = Connections(_HOST, listener.getsockname()[1])
                self.container = container = self._start_container(factory, listener.fileno())
        try:
            self._await_ping(container, self._connections, deadline_seconds)
        except StartError:
            container.kill()
            raise

    def reserve(self) -> None:
        """Count a request that is about to be sent, so that the server is not stopped before it."""
        with self._lock:
            self._in_flight += 1

    def release(self) -> None:
        """Count a reserved request no more: it was answered, or is not sent."""
        with self._lock:
            self._in_flight -= 1
            self.idle_since = time.monotonic()

    def invoke(self, body: bytes, headers: Mapping[str, str], timeout_seconds: float) -> Answer:
        """Post a reserved request and return the answer.

        Raises:
            OSError: The server is gone, or did not answer in time.
            http.client.HTTPException: It answered something that is no HTTP.
        """
        try:
            if self._connections is None:
                msg = "it was never started"
                raise ConnectionRefusedError(msg)
            return self._connections.post("/invocations", body, headers, timeout_seconds)
        finally:
            self.release()

    def close(self) -> None:
        """Begin no new process, and let go of connections that nobody uses."""
        with self._lock:
            self._closed.set()
            if self._connections:
                self._connections.close()

    def _prepare(self) -> str:
        """Return the ASGI factory of the package, which is brought if it is not here yet."""
        if not self.package.exists():
            self._download()
        unmet = unmet_requirements(self.package / "code" / "requirements.txt")
        if unmet:
            msg = f"code/requirements.txt asks for {', '.join(unmet)}, which this machine's Python does not have"
            raise StartError(msg)
        return _asgi_app(self.package)

    def _download(self) -> None:
        role, uri = self._model["ExecutionRoleArn"], self._model["PrimaryContainer"]["ModelDataUrl"]
        archive = self._folder / "model.tar.gz"
        try:
            ObjectStore(self._account, role).download_file(uri, archive)
            unpack(archive, self.package)
        except (DownloadError, AwsError) as error:
            msg = f"Failed to download model data for the container from {uri}: {error}"
            raise StartError(msg) from error
        except ArchiveError as error:
            msg = f"{uri} is {error}"
            raise StartError(msg) from error
        archive.unlink()

    def _start_container(self, factory: str, listener: int) -> Container:
        try:
            credentials = self._account.role_environment(self._model["ExecutionRoleArn"])
        except AwsError as error:
            raise StartError(error.message) from error
        variables = {
            **credentials,
            **self._model["PrimaryContainer"].get("Environment", {}),
            "SAGEMAKER_BASE_DIR": str(self._folder),
            "SM_MODEL_DIR": str(self.package),
            "PYTHONPATH": f"{self.package}:{self.package / 'code'}",
        }
        # -P: the package's modules come first, and none from beside the script.
        limit = [] if self._memory_mb is None else [str(self._memory_mb)]
        command = [sys.executable, "-P", str(_SERVER), str(listener), factory, *limit]
        return Container(command, clean_environment(self._folder, variables), self.package, self._on_line, [listener])

    def _await_ping(self, container: Container, connections: Connections, deadline_seconds: float) -> None:
        deadline = time.monotonic() + deadline_seconds
        while not self._closed.is_set():
            if container.returncode is not None:
                container.wait()
                said = " ".join(container.tail[-_WORDS:]) or "it wrote nothing"
                msg = f"The container ended with exit code {container.returncode} before it answered /ping: {said}"
                raise StartError(msg)
            if connections.answers("/ping", _PING_TIMEOUT_SECONDS):
                return
            if time.monotonic() >= deadline:
                said = " ".join(container.tail[-_WORDS:])
                msg = f"The container did not pass the ping health check in {deadline_seconds:.0f} s: {said}"
                raise StartError(msg)
            time.sleep(_PING_SECONDS)
        msg = "The endpoint was deleted before the container answered /ping"
        raise StartError(msg)


def _asgi_app(package: Path) -> str:
    """Return the ASGI factory that a package's config.yaml names.

    Raises:
        StartError: There is none.
    """
    try:
        config = yaml.safe_load((package / "config.yaml").read_text(encoding="utf-8"))
        factory = config["applications"][0]["args"]["asgi_app"]
    except (OSError, UnicodeError, yaml.YAMLError, KeyError, IndexError, TypeError) as error:
        msg = (
            "The local AWS serves packages for the Ray Serve image whose config.yaml names an ASGI factory in "
            f"applications[0].args.asgi_app; this one does not ({error!r})"
        )
        raise StartError(msg) from error
    return str(factory)

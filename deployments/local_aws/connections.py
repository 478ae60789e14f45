"""HTTP connections to a container, kept open between requests."""

import http.client
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass

_HTTP_OK = 200


@dataclass(frozen=True)
class Answer:
    """What a container answered."""

    status: int
    headers: Mapping[str, str]  # as they are spelled by the container
    body: bytes

    def header(self, name: str) -> str | None:
        """Return a header, however it is spelled."""
        return next((value for other, value in self.headers.items() if other.lower() == name.lower()), None)


class Connections:
    """Connections to one port; safe to use from several threads."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def post(self, path: str, body: bytes, headers: Mapping[str, str], timeout_seconds: float) -> Answer:
        """Post a body and return the answer.

        Raises:
            OSError: Nobody listens, or nobody answered in time.
            http.client.HTTPException: What came is no HTTP.
        """
        connection = self._take(timeout_seconds)
        try:
            connection.request("POST", path, body, dict(headers))
            response = connection.getresponse()
            answer = Answer(response.status, dict(response.headers.items()), response.read())
        except BaseException:
            connection.close()
            raise
        with self._lock:
            self._idle.append(connection)
        return answer

    def answers(self, path: str, timeout_seconds: float) -> bool:
        """Tell whether a GET is answered with 200."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout_seconds)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == _HTTP_OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def close(self) -> None:
        """Close what is idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _take(self, timeout_seconds: float) -> http.client.HTTPConnection:
        with self._lock:
            while self._idle:
                connection = self._idle.pop()
                if connection.sock and not _has_ended(connection.sock):
                    connection.sock.settimeout(timeout_seconds)
                    return connection
                connection.close()
        return http.client.HTTPConnection(self._host, self._port, timeout=timeout_seconds)


def _has_ended(idle: socket.socket) -> bool:
    """Tell whether the other side closed an idle connection: there is nothing else to be read on one."""
    idle.setblocking(False)  # noqa: FBT003 - the parameter has no name
    try:
        idle.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True

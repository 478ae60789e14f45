"""Serves an ASGI application on a socket that listens already: asgi_server.py DESCRIPTOR MODULE:FACTORY [MEMORY_MB].

Started as a script by the local AWS for an endpoint's container. The socket is handed over and never closed in between,
so that no two servers can come to share a port.
"""

import resource
import socket
import sys
from contextlib import suppress

import uvicorn

_KEEP_ALIVE_SECONDS = 3600  # whoever calls keeps its connections
_STARTUP_FAILED = 3


def _main(descriptor: str, factory: str, memory_mb: str | None = None) -> int:
    if memory_mb is not None:
        _limit_memory(int(memory_mb) * 2**20)
    listener = socket.socket(fileno=int(descriptor))
    config = uvicorn.Config(factory, factory=True, access_log=False, timeout_keep_alive=_KEEP_ALIVE_SECONDS)
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    return 0 if server.started else _STARTUP_FAILED


def _limit_memory(limit_bytes: int) -> None:
    # Of data, and not of addresses, as for functions: libraries map far more than they use. Enforced by Linux.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))

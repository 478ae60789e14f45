"""Serves an ASGI application on a socket that listens already: asgi_server.py DESCRIPTOR MODULE:FACTORY.

Started as a script by the local AWS for an endpoint's container. The socket is handed over and never closed in between,
so that no two servers can come to share a port.
"""

import socket
import sys

import uvicorn

_KEEP_ALIVE_SECONDS = 3600  # whoever calls keeps its connections
_STARTUP_FAILED = 3


def _main(descriptor: str, factory: str) -> int:
    listener = socket.socket(fileno=int(descriptor))
    config = uvicorn.Config(factory, factory=True, access_log=False, timeout_keep_alive=_KEEP_ALIVE_SECONDS)
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    return 0 if server.started else _STARTUP_FAILED


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))

"""A Prefect server of this project's own, on this machine, with its database under .prefect/.

python -m deployments.prefect_server               serves in the foreground, on port 4200 unless --port says otherwise
python -m deployments.prefect_server -- COMMAND    runs COMMAND against it, and ends with COMMAND's exit code
python -m deployments.prefect_server --early -- COMMAND    runs a COMMAND that waits for the server, as flows do

Both use the same database: what ran under the one is seen in the UI of the other.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HOST = "127.0.0.1"
_UI_PORT = 4200
_START_SECONDS = 120
_STOP_SECONDS = 20
_COMMAND_NOT_FOUND = 127


def server_environment(home: Path, port: int) -> dict[str, str]:
    """Return the variables that make a Prefect server, and its clients, live in a folder and at a port."""
    home = home.resolve()
    return {
        "PREFECT_HOME": str(home),
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / 'prefect.db'}",
        "PREFECT_API_URL": f"http://{_HOST}:{port}/api",
        # The UI asks the port that the server's own settings name, not the one it was started with.
        "PREFECT_SERVER_API_HOST": _HOST,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_CLI_PROMPT": "false",
        "DO_NOT_TRACK": "1",
    }


@contextmanager
def running(home: Path, port: int = 0, *, early: bool = False) -> Iterator[dict[str, str]]:
    """Run a server until the block ends, and give the environment of its clients: when it answers, or early.

    Raises:
        OSError: The port is taken.
        TimeoutError: The server did not answer in time; its log is in the folder.
    """
    home.mkdir(parents=True, exist_ok=True)
    environment = server_environment(home, _free_port(port))
    address = environment["PREFECT_SERVER_API_PORT"]
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", _HOST, "--port", address]
    with (home / "server.log").open("ab") as log:
        # A group of its own: Ctrl-C goes to the command first, the server ends after it.
        server = subprocess.Popen(  # noqa: S603 - our own interpreter, no shell
            command, env={**os.environ, **environment}, stdout=log, stderr=log, start_new_session=True
        )
        try:
            if not early:
                _await_health(f"{environment['PREFECT_API_URL']}/health", server, home / "server.log")
            yield environment
        finally:
            _stop(server)


def main(arguments: list[str]) -> int:
    """Serve, or run a command against a server; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deployments.prefect_server", description=__doc__.split("\n")[0])
    parser.add_argument("--home", type=Path, default=Path(".prefect"), help="folder of the database")
    parser.add_argument("--port", type=int, help=f"{_UI_PORT} when serving, a free one around a command")
    parser.add_argument("--early", action="store_true", help="run COMMAND while the server starts: it waits itself")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- COMMAND…")
    options = parser.parse_args(arguments)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    try:
        port = options.port or (0 if command else _UI_PORT)
        with running(options.home, port, early=options.early) as environment:
            return _run(command, environment) if command else _serve(environment)
    except (OSError, TimeoutError) as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _run(command: list[str], environment: dict[str, str]) -> int:
    try:
        child = subprocess.Popen(command, env={**os.environ, **environment})  # noqa: S603 - what the user asked to run
    except FileNotFoundError:
        sys.stderr.write(f"There is no command {command[0]}: check its spelling\n")
        return _COMMAND_NOT_FOUND
    # Ctrl-C reaches the child by itself, SIGTERM does not; either way its exit code is ours.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    return child.wait()


def _serve(environment: dict[str, str]) -> int:
    sys.stdout.write(f"Prefect UI: {environment['PREFECT_API_URL'].removesuffix('/api')}   (Ctrl-C ends it)\n")
    sys.stdout.write(f"export PREFECT_API_URL={environment['PREFECT_API_URL']}\n")
    sys.stdout.flush()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        signal.pause()
    except KeyboardInterrupt:
        return 0
    return 0


def _free_port(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            msg = f"Port {port} is taken: stop what listens there, or choose another with --port"
            raise OSError(msg) from error
        return int(probe.getsockname()[1])


def _await_health(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - loopback, built above
                if answer.read() == b"true":
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    msg = f"The Prefect server did not start: see {log}"
    raise TimeoutError(msg)


def _stop(server: "subprocess.Popen[bytes]") -> None:
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGTERM)
    try:
        server.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

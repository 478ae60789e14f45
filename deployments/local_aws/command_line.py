"""The command line of the local AWS.

``python -m deployments.local_aws`` serves in the foreground until Ctrl-C and prints the exports that point a shell at
it. ``python -m deployments.local_aws -- COMMAND…`` runs COMMAND against one of its own and ends with COMMAND's exit
code; with ``--kept``, against the one that the first form keeps running, if there is one. Both are for the worker, to
whom the foundation's policy is allowed; ``--administrator`` is for who looks around. ``python -m deployments.local_aws
policy`` prints what would have been enough.
"""

import argparse
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

from deployments.local_aws.foundation import lay_foundation
from deployments.local_aws.policy_command import print_policy
from deployments.local_aws.server import LocalAws, running
from deployments.local_aws.wsgi_server import PortInUseError

COMMAND_NOT_FOUND = 127
COMMAND_NOT_EXECUTABLE = 126
ENVIRONMENT_FILE = "environment.sh"
ADMINISTRATOR_FILE = "administrator.sh"
DEFAULT_ROOT = Path(".local_aws")
_CONNECT_SECONDS = 2.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# What a shell may hold that would win over the exports.
_UNSET = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")


def main(arguments: list[str]) -> int:
    """Run the command line and return the exit code."""
    if arguments[:1] == ["policy"]:
        return print_policy(arguments[1:], DEFAULT_ROOT)
    options = _parse(arguments)
    try:
        if options.command:
            kept = _find_kept(options) if options.kept else None
            return _run_against(kept, options.command) if kept else _wrap(options)
        return _serve(options)
    except PortInUseError as error:
        _say(str(error))
        return 1


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m deployments.local_aws", description="An AWS on this machine.")
    parser.add_argument("--port", type=int, default=0, help="where to listen on 127.0.0.1; a free port if not given")
    parser.add_argument("--root", type=Path, help="where its files are (default: .local_aws; a temporary one with --)")
    parser.add_argument(
        "--kept", action="store_true", help="with --: use the one that is kept running, if there is one"
    )
    parser.add_argument(
        "--administrator", action="store_true", help="as the account's owner, to whom everything is allowed"
    )
    parser.add_argument(
        "--no-capacity",
        action="append",
        default=[],
        metavar="TYPE",
        help="an instance type that is not to be had, spot:TYPE as spot only, to try what happens then; repeatable",
    )
    ours, dashes, command = arguments, [], []
    if "--" in arguments:
        split = arguments.index("--")
        ours, dashes, command = arguments[:split], arguments[split : split + 1], arguments[split + 1 :]
    options = parser.parse_args(ours)
    if dashes and not command:
        parser.error("there is no command after --")
    options.command = command
    return options


def _serve(options: argparse.Namespace) -> int:
    stop = threading.Event()
    root: Path = options.root or DEFAULT_ROOT
    with _handling(lambda _number: stop.set()), running(root.resolve(), options.port) as local_aws:
        _furnish(local_aws, options)
        worker = _write_exports(local_aws.worker_environment, root / ENVIRONMENT_FILE)
        # Whoever sees the console sees what the administrator sees: its address is in no file of the worker's.
        console = f"The console is at {local_aws.console_url}"
        administrator = _write_exports(local_aws.environment, root / ADMINISTRATOR_FILE, f"# {console}\n")
        sys.stdout.write(administrator if options.administrator else worker)
        sys.stdout.flush()
        _say(f"The local AWS listens on {local_aws.endpoint_url}; Ctrl-C ends it.")
        _say(console)
        stop.wait()
        _say("The local AWS is shutting down.")
        for name in (ENVIRONMENT_FILE, ADMINISTRATOR_FILE):
            (root / name).unlink(missing_ok=True)
    return 0


def _write_exports(variables: dict[str, str], path: Path, comment: str = "") -> str:
    """Write the exports to a file that only this user can read, for they hold the secret key, and return them."""
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    text = f"unset {' '.join(_UNSET)}\n{exports}{comment}"
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return text


def _find_kept(options: argparse.Namespace) -> dict[str, str] | None:
    """Return the variables of the local AWS that is kept running in a folder; None when nobody answers there."""
    root: Path = options.root or DEFAULT_ROOT
    try:
        lines = (
            (root / (ADMINISTRATOR_FILE if options.administrator else ENVIRONMENT_FILE))
            .read_text(encoding="utf-8")
            .splitlines()
        )
        exports = [shlex.split(line)[1].partition("=") for line in lines if line.startswith("export ")]
        variables = {name: value for name, _, value in exports}
        address = urlsplit(variables["AWS_ENDPOINT_URL"])
        with socket.create_connection((address.hostname, address.port), _CONNECT_SECONDS):
            _say(f"Using the local AWS that is kept running at {address.geturl()}: it knows what was done before.")
            return variables
    except (OSError, KeyError, IndexError):
        _say("Starting a local AWS that ends, and forgets, with the command: make local-aws keeps one running.")
        return None


def _run_against(variables: dict[str, str], command: list[str]) -> int:
    forwarding = _Forwarding()
    with _handling(forwarding.forward):
        inherited = {name: value for name, value in os.environ.items() if name not in _UNSET}
        return forwarding.run(command, {**inherited, **variables})


def _wrap(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="local-aws-", ignore_cleanup_errors=True) as temporary:
        forwarding = _Forwarding()
        directory = options.root.resolve() if options.root else Path(temporary)
        with _handling(forwarding.forward), running(directory, options.port) as local_aws:
            _furnish(local_aws, options)
            if options.kept and sys.stderr.isatty():  # someone watches; a log is no place for it
                _say(f"The console is at {local_aws.console_url}")
            variables = local_aws.environment if options.administrator else local_aws.worker_environment
            return forwarding.run(options.command, {**os.environ, **variables})


def _furnish(local_aws: LocalAws, options: argparse.Namespace) -> None:
    local_aws.account.types_without_capacity |= set(options.no_capacity)
    lay_foundation(local_aws.account)


class _Forwarding:
    """Runs a command, and hands it the signals that end us."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._early: int | None = None  # a signal from before the command ran

    def forward(self, number: int) -> None:
        """Pass the signal on."""
        if self._process is None:
            self._early = number
        elif not (number == signal.SIGINT and _terminal_signals_us()):
            self._process.send_signal(number)

    def run(self, command: list[str], environment: dict[str, str]) -> int:
        """Return the command's exit code, as a shell counts it."""
        if self._early is not None:
            return 128 + self._early
        try:
            self._process = subprocess.Popen(command, env=environment)  # noqa: S603 - the user's own command
        except FileNotFoundError:
            _say(f"There is no command {command[0]}")
            return COMMAND_NOT_FOUND
        except PermissionError:
            _say(f"The command {command[0]} cannot be executed")
            return COMMAND_NOT_EXECUTABLE
        if self._early is not None:  # it came while Popen was still at work
            self.forward(self._early)
        code = self._process.wait()
        return 128 - code if code < 0 else code


def _terminal_signals_us() -> bool:
    # Ctrl-C reaches the whole foreground group: the command has it already, and a second one would cut its clean-up.
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return False


@contextmanager
def _handling(handle: Callable[[int], object]) -> Iterator[None]:
    """Call back on SIGINT and SIGTERM within the block."""

    def handler(number: int, _frame: FrameType | None) -> None:
        handle(number)

    earlier = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, previous in earlier.items():
            signal.signal(number, previous)


def _say(sentence: str) -> None:
    # Standard output is for the exports alone.
    sys.stderr.write(f"{sentence}\n")
    sys.stderr.flush()

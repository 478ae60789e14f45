"""The machine of an instance: a folder of its own, and the processes that run in it."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from deployments.local_aws.containers import ProcessTree, clean_environment, stop_all

_SHUTDOWN = Path(__file__).with_name("shutdown.sh")
_OWNER = Path("run") / "owner"  # the process of the local AWS that it belongs to


class InstanceShell:
    """What runs on one instance between its boot and its end; it has no root of its own, but a folder to live in.

    Paths that come through an API are read as the instance's, below the folder; in a script they are this machine's.

    Args:
        folder: Where it lives; kept when the instance is stopped.
        users: Who has a home there, beside root.
    """

    def __init__(self, folder: Path, users: Sequence[str]) -> None:
        self.folder = folder
        self.closing = threading.Event()
        self._processes: list[ProcessTree] = []
        self._lock = threading.Lock()
        for name in ("bin", "root", "run", "tmp", "var/log", *(f"home/{user}" for user in users)):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / _OWNER).write_text(str(os.getpid()), "utf-8")
        self._plan = folder / "run" / "shutdown"
        self._plan.unlink(missing_ok=True)
        shutil.copyfile(_SHUTDOWN, folder / "bin" / "shutdown")
        (folder / "bin" / "shutdown").chmod(0o755)

    def path(self, path: str) -> Path:
        """Return where a path of the instance is on this machine; `..` does not lead out of it."""
        return self.folder / os.path.normpath(f"/{path}").lstrip("/")

    def start(
        self, command: Sequence[str], variables: Mapping[str, str], *, folder: Path, stdout: Path, stderr: Path
    ) -> ProcessTree | None:
        """Start a command with its output in files; None when the instance is going down.

        What it leaves in the background lives on, until the instance ends.
        """
        # The instance's own commands, then those of this Python's environment, such as aws; nothing is installed.
        path = os.pathsep.join(
            (str(self.folder / "bin"), str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))
        )
        environment = clean_environment(
            self.folder / "root", {"PATH": path, "PIP_NO_INDEX": "1", "AWS_EC2_METADATA_DISABLED": "true", **variables}
        )
        with self._lock, stdout.open("ab") as out, stderr.open("ab") as err:
            if self.closing.is_set():
                return None
            process = ProcessTree(
                command,
                environment,
                folder,
                stdout=out,
                stderr=subprocess.STDOUT if stderr == stdout else err,
                lingering=True,
            )
            # Those that have ended are forgotten, and reaped.
            self._processes = [one for one in self._processes if one.wait(0) is None] + [process]
            return process

    def planned_shutdown(self) -> tuple[int, float] | None:
        """Return which plan its `shutdown` has made, and in how many minutes; None without one."""
        try:
            return self._plan.stat().st_mtime_ns, float(self._plan.read_text("utf-8"))
        except FileNotFoundError:
            return None

    def close(self, grace_seconds: float) -> None:
        """End every process: asked to at first, killed after the grace. Returns when all are gone."""
        with self._lock:
            self.closing.set()
        kill_at = time.monotonic() + grace_seconds
        stop_all(self._processes, lambda: kill_at)


def remove_abandoned(folders: Path) -> None:
    """Remove the folders of instances that ended with their local AWS; another one that runs keeps its own."""
    for folder in folders.glob("i-*"):
        try:
            os.kill(int((folder / _OWNER).read_text("utf-8")), 0)
        except (OSError, ValueError):
            shutil.rmtree(folder, ignore_errors=True)

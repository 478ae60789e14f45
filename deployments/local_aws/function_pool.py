"""Execution environments of all functions: warm ones used again, idle ones ended, provisioned ones kept."""

import contextlib
import shutil
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path

from deployments.local_aws.account import Account
from deployments.local_aws.function_environment import ExecutionEnvironment, Invocation, Outcome
from deployments.local_aws.function_versions import Version
from deployments.local_aws.protocol import AwsError

# Half of the gateway's threads: a function that calls AWS while it is called needs a second one.
MOST_AT_ONCE = 16
_REAP_SECONDS = 1.0
_STARTING_AT_ONCE = 2  # processes that import their modules; more would only wait for each other


class EnvironmentPool:
    """The environments of an account's functions; each serves one event at a time."""

    idle_seconds = 300.0

    def __init__(self, account: Account, folder: Path) -> None:
        self._account, self._folder = account, folder
        self._idle: dict[str, list[ExecutionEnvironment]] = {}  # by revision, the newest last
        self._all: set[ExecutionEnvironment] = set()
        self._busy: Counter[str] = Counter()  # events by function
        self._retired: set[str] = set()
        self._kept: dict[str, int] = {}  # provisioned environments by revision
        self._failures: dict[str, str] = {}  # why there are not as many
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._work = ThreadPoolExecutor(_STARTING_AT_ONCE, thread_name_prefix="functions")
        self._reaper = threading.Thread(target=self._reap, daemon=True, name="functions-idle")
        self._reaper.start()

    def run(self, version: Version, invocation: Invocation, reserved: int | None) -> Outcome:
        """Have a version answer an event.

        Raises:
            AwsError: TooManyRequestsException, or the role cannot be assumed any more.
        """
        with self._slot(version.name, reserved):
            environment = self._warm(version) or self._cold(version)
            outcome = environment.invoke(invocation)
            self._give_back(environment)
        return outcome

    def keep(self, version: Version, count: int) -> None:
        """Begin to have so many environments of a version, made ahead of their events; 0 for none."""
        with self._lock:
            self._kept[version.revision_id] = count
            self._failures.pop(version.revision_id, None)
        self._work.submit(self._provision, version)

    def provisioned(self, version: Version) -> tuple[int, int]:
        """Return how many provisioned environments a version has, and how many of them are idle."""
        with self._lock:
            own = [one for one in self._provisioned_of(version) if one.loaded]
            idle = self._idle.get(version.revision_id, [])
            return len(own), len([one for one in own if one in idle])

    def why_not_provisioned(self, version: Version) -> str:
        """Return why a version's environments could not be made ahead; empty when nothing went wrong."""
        with self._lock:
            return self._failures.get(version.revision_id, "")

    def retire(self, version: Version) -> None:
        """Give a version no more events; its environments end after what they are doing."""
        with self._lock:
            self._retired.add(version.revision_id)
            self._kept.pop(version.revision_id, None)
            for environment in self._idle.pop(version.revision_id, []):
                self._discard(environment)

    def stop(self) -> None:
        """End every environment."""
        self._stopping.set()
        with self._lock:
            environments = list(self._all)
        for environment in environments:
            environment.kill()
        self._work.shutdown(cancel_futures=True)
        with ThreadPoolExecutor(max(len(environments), 1)) as closers:
            list(closers.map(self._close, environments))
        self._reaper.join()

    # --- who may run --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _slot(self, name: str, reserved: int | None) -> Iterator[None]:
        with self._lock:
            if reserved is not None and self._busy[name] >= reserved:
                reason = "ReservedFunctionConcurrentInvocationLimitExceeded"
                raise _throttled(reason)
            if self._busy.total() >= MOST_AT_ONCE:
                reason = "ConcurrentInvocationLimitExceeded"
                raise _throttled(reason)
            self._busy[name] += 1
        try:
            yield
        finally:
            with self._lock:
                self._busy[name] -= 1

    def _warm(self, version: Version) -> ExecutionEnvironment | None:
        with self._lock:
            idle = self._idle.get(version.revision_id, [])
            # Provisioned ones first; others are what spills over.
            idle.sort(key=lambda one: (one.provisioned, one.idle_since))
            while idle:
                environment = idle.pop()
                if environment.alive:
                    return environment
                self._discard(environment)
        return None

    def _cold(self, version: Version, *, provisioned: bool = False) -> ExecutionEnvironment:
        folder = self._folder / uuid.uuid4().hex
        folder.mkdir(parents=True)
        try:
            environment = ExecutionEnvironment(self._account, version, folder, provisioned=provisioned)
        except AwsError as error:
            code, message = "AccessDeniedException", "The role defined for the function cannot be assumed by Lambda."
            raise AwsError(code, message, HTTPStatus.FORBIDDEN, {"Type": "User"}) from error
        with self._lock:
            self._all.add(environment)
        if self._stopping.is_set():
            environment.kill()
        environment.start()
        return environment

    def _give_back(self, environment: ExecutionEnvironment) -> None:
        version = environment.version
        with self._lock:
            if environment.healthy and version.revision_id not in self._retired and not self._stopping.is_set():
                self._idle.setdefault(version.revision_id, []).append(environment)
                return
            self._discard(environment)
            if environment.provisioned and not self._stopping.is_set():
                self._work.submit(self._provision, version)  # another one in its place

    # --- what is made and ended in the background ---------------------------------------------------------------------

    def _provision(self, version: Version) -> None:
        """Make or end provisioned environments until there are as many as asked for."""
        revision_id = version.revision_id
        while not self._stopping.is_set():
            with self._lock:
                have, want = self._provisioned_of(version), self._kept.get(revision_id, 0)
                for surplus in have[want:]:
                    surplus.provisioned = False  # as any other: it ends when it was idle for long
            if len(have) >= want:
                return
            try:
                environment = self._cold(version, provisioned=True)
            except AwsError as error:
                with self._lock:
                    self._failures[revision_id] = error.message
                return
            if not environment.loaded:
                with self._lock:
                    self._failures[revision_id] = environment.failure
                    self._discard(environment)
                return
            self._give_back(environment)

    def _provisioned_of(self, version: Version) -> list[ExecutionEnvironment]:
        revision_id = version.revision_id
        return [one for one in self._all if one.provisioned and one.healthy and one.version.revision_id == revision_id]

    def _reap(self) -> None:
        while not self._stopping.wait(_REAP_SECONDS):
            before = time.monotonic() - self.idle_seconds
            with self._lock:
                for idle in self._idle.values():
                    for environment in [one for one in idle if one.idle_since < before and not one.provisioned]:
                        idle.remove(environment)
                        self._discard(environment)

    def _discard(self, environment: ExecutionEnvironment) -> None:
        environment.kill()
        if not self._stopping.is_set():  # else whoever stops closes all
            threading.Thread(target=self._close, args=[environment], daemon=True, name="function-end").start()

    def _close(self, environment: ExecutionEnvironment) -> None:
        environment.close()
        shutil.rmtree(environment.folder, ignore_errors=True)
        with self._lock:
            self._all.discard(environment)


def _throttled(reason: str) -> AwsError:
    details = {"Reason": reason, "Type": "User"}
    return AwsError("TooManyRequestsException", "Rate Exceeded.", HTTPStatus.TOO_MANY_REQUESTS, details)

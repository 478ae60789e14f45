"""One EC2 instance as it lives: moto's record of it, a machine, and the thread that takes it through its states."""

import shutil
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from moto.ec2.models.instances import Instance as Record
from moto.ec2.models.instances import StateReason

from deployments.local_aws.account import Account, Credentials
from deployments.local_aws.deep_learning_amis import Platform, platform_of
from deployments.local_aws.instance_shell import InstanceShell
from deployments.local_aws.protocol import AwsError

PRINCIPAL = "ec2.amazonaws.com"
STATE_CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
USER_INITIATED = StateReason("Client.UserInitiatedShutdown: User initiated shutdown", "Client.UserInitiatedShutdown")
INSTANCE_INITIATED = StateReason(
    "Client.InstanceInitiatedShutdown: Instance initiated shutdown", "Client.InstanceInitiatedShutdown"
)
_POLL_SECONDS = 0.05


class Instance:
    """An instance of the account.

    Args:
        account: Whose it is.
        record: What EC2's Describe operations tell of it; its state is set here.
        user_data: The script that runs at its first boot.
        role_arn: The role of its instance profile.
    """

    boot_seconds = 0.1
    agent_seconds = 0.2  # from running until the SSM agent has registered
    minute_seconds = 60.0  # of its shutdown command
    shutdown_grace_seconds = 2.0

    def __init__(self, account: Account, record: Record, user_data: bytes | None, role_arn: str | None) -> None:
        self._account, self._user_data = account, user_data
        self.record, self.role_arn = record, role_arn
        self.id = str(record.id)
        self.platform: Platform = platform_of(str(record.image_id))
        self.shell = self._new_shell()
        self.registered: datetime | None = None  # when its SSM agent first did
        self._agent_runs = False
        self._ends_as = "terminated"
        self._ending = threading.Event()
        self._lock = threading.RLock()
        self._thread = threading.Thread()

    @property
    def state(self) -> str:
        """The name of its state."""
        return self.record.state

    @property
    def agent_is_online(self) -> bool:
        """Whether Systems Manager reaches its agent."""
        return self._agent_runs and self.state == "running"

    @property
    def credentials(self) -> Credentials | None:
        """Temporary credentials of its role, under its id as EC2 issues them; None where it has no usable role."""
        if self.role_arn is None:
            return None
        try:
            return self._account.assume_as_service(self.role_arn, PRINCIPAL, self.id)
        except AwsError:  # as on AWS: it runs, and has none
            return None

    def variables(self) -> Mapping[str, str]:
        """Return how its processes reach AWS. As on AWS, nothing tells them their region."""
        credentials = self.credentials
        if credentials is None:
            return {"AWS_ENDPOINT_URL": self._account.endpoint_url}
        regions = ("AWS_REGION", "AWS_DEFAULT_REGION")
        environment = self._account.environment(credentials)
        return {name: value for name, value in environment.items() if name not in regions}

    def boot(self, *, first: bool) -> None:
        """Begin to run; user data is for the first boot only."""
        with self._lock:
            self._ending.clear()
            if not first:
                self.shell = self._new_shell()
                self.record.start()
            self._enter("pending")
            self._thread = threading.Thread(target=self._live, args=(first,), daemon=True, name=self.id)
            self._thread.start()

    def end(self, ends_as: str, reason: StateReason = USER_INITIATED) -> None:
        """Begin to end it: as `terminated` or as `stopped`; what is ending as stopped can still be terminated."""
        with self._lock:
            if self.state in ("terminated", ends_as) or (self._ending.is_set() and self._ends_as == "terminated"):
                return
            was_stopped = self.state == "stopped"
            self._ends_as = ends_as
            self._enter("shutting-down" if ends_as == "terminated" else "stopping")
            self.record.state_reason = reason
            self._ending.set()
            if was_stopped:
                self._finish()

    def join(self) -> None:
        """Return when it has ended."""
        if self._thread.is_alive():
            self._thread.join()

    def _new_shell(self) -> InstanceShell:
        return InstanceShell(self._account.root / "instances" / self.id, [self.platform.user])

    def _live(self, first: bool) -> None:  # noqa: FBT001 - called by Thread
        if not self._ending.wait(self.boot_seconds):
            with self._lock:
                if not self._ending.is_set():
                    self._enter("running")
            if first and self._user_data is not None:
                self._run_user_data(self._user_data)
        booted_at = time.monotonic()
        while not self._ending.wait(_POLL_SECONDS):
            if not self._agent_runs and time.monotonic() >= booted_at + self.agent_seconds:
                self._start_agent()
            self._obey_shutdown()
        self._finish()

    def _run_user_data(self, script: bytes) -> None:
        path = self.shell.path("/var/lib/cloud/instance/scripts/part-001")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(script)
        path.chmod(0o700)
        log = self.shell.path("/var/log/cloud-init-output.log")
        try:
            self.shell.start([str(path)], self.variables(), folder=self.shell.folder, stdout=log, stderr=log)
        except OSError as error:
            log.write_text(f"{error}\n", "utf-8")

    def _start_agent(self) -> None:
        # Systems Manager knows nodes by their role: without one the agent tries for ever.
        self._agent_runs = self.credentials is not None
        if self._agent_runs and self.registered is None:
            self.registered = datetime.now(UTC)

    _plan: tuple[int, float] | None = None  # its id, and when it is due

    def _obey_shutdown(self) -> None:
        planned = self.shell.planned_shutdown()
        if planned is None:
            self._plan = None
            return
        number, minutes = planned
        if self._plan is None or self._plan[0] != number:
            self._plan = number, time.monotonic() + minutes * self.minute_seconds
        if time.monotonic() >= self._plan[1]:
            behaviour = self.record.instance_initiated_shutdown_behavior
            self.end("terminated" if behaviour == "terminate" else "stopped", INSTANCE_INITIATED)

    def _finish(self) -> None:
        """Enter the last state, when nothing of it runs any more."""
        self.shell.close(self.shutdown_grace_seconds)
        with self._lock:
            reason = self.record.state_reason
            self._agent_runs, self._plan = False, None
            if self._ends_as == "terminated":
                shutil.rmtree(self.shell.folder, ignore_errors=True)
                self.record.terminate()
            else:
                self.record.stop()
            self.record.state_reason = reason

    def _enter(self, state: str) -> None:
        self.record._state.name, self.record._state.code = state, STATE_CODES[state]  # noqa: SLF001 - moto has no setter

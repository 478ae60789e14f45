"""One training job as it runs: folders, data, containers, and what is left of them in S3."""

import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deployments.local_aws import script_mode
from deployments.local_aws.account import Account
from deployments.local_aws.archives import ArchiveError, files_below, pack, unpack
from deployments.local_aws.containers import Container, clean_environment, stop_all
from deployments.local_aws.log_streams import LogStream
from deployments.local_aws.object_store import CheckpointSync, DownloadError, ObjectStore, UploadError
from deployments.local_aws.requirements import unmet_requirements
from deployments.local_aws.training_requests import checkpoint_folder

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
_REASON_LIMIT = 1024
_LINES_IN_REASON = 12
_POLL_SECONDS = 0.05
_CHECKPOINT_SECONDS = 5.0
_COMMAND_LIMIT = 300
_DEFAULT_RUNTIME_SECONDS = 86_400
_NO_CAPACITY = (
    "CapacityError: Unable to provision requested ML compute capacity. Please retry using a different ML instance type."
)


class FailedError(Exception):
    """The job failed; the text is its FailureReason."""


class TrainingRun:
    """Runs a job's containers from their data to their model.

    Args:
        account: Whose job it is.
        arn: The job's.
        request: The CreateTrainingJob request.
        grace_seconds: Between SIGTERM and SIGKILL.
        on_phase: Called with each secondary status as it begins.
        on_metric: Called with name, value and time of each metric that the lines carry.
    """

    def __init__(
        self,
        account: Account,
        arn: str,
        request: dict[str, Any],
        *,
        grace_seconds: float,
        on_phase: Callable[[str], None],
        on_metric: Callable[[str, float, datetime], None],
    ) -> None:
        self._account, self._arn, self._request = account, arn, request
        self._on_phase, self._on_metric = on_phase, on_metric
        self.name: str = request["TrainingJobName"]
        self.folder = account.root / "training-jobs" / self.name
        self._store = ObjectStore(account, request["RoleArn"])
        self._hosts = [f"algo-{i + 1}" for i in range(request["ResourceConfig"]["InstanceCount"])]
        self._metrics = [
            (metric["Name"], re.compile(metric["Regex"]))
            for metric in request["AlgorithmSpecification"].get("MetricDefinitions", [])
        ]
        self._containers: list[Container] = []
        self._stopping = threading.Event()
        self._grace_seconds = grace_seconds
        self._kill_at = float("inf")

    def stop(self, grace_seconds: float | None = None) -> None:
        """Ask the containers to end, and end them after the grace; a second time can only shorten it."""
        grace = self._grace_seconds if grace_seconds is None else grace_seconds
        self._kill_at = min(self._kill_at, time.monotonic() + grace)
        self._stopping.set()

    def run(self) -> str:
        """Run to the end; return the secondary status that it ended with.

        Raises:
            FailedError: It failed.
        """
        bases = [self.folder / host for host in self._hosts]
        if self._request["ResourceConfig"]["InstanceType"] in self._account.types_without_capacity:
            raise FailedError(_NO_CAPACITY)
        try:
            self._on_phase("Downloading")
            self._prepare(bases)
            if self._stopping.is_set():
                return "Stopped"
            ended = self._train_with_checkpoints(bases)
            self._on_phase("Uploading")
            self._upload(bases)
        except (DownloadError, UploadError) as error:
            raise FailedError(str(error)[:_REASON_LIMIT]) from error
        return ended

    def _prepare(self, bases: Sequence[Path]) -> None:
        channels = self._request.get("InputDataConfig", [])
        for index, (base, host) in enumerate(zip(bases, self._hosts, strict=True)):
            for name in ("model", "output/data", "code", "input/data"):
                (base / name).mkdir(parents=True, exist_ok=True)
            script_mode.write_configuration(base, self._request, host, self._hosts)
            for channel in channels:
                if self._stopping.is_set():
                    return
                folder = base / "input" / "data" / channel["ChannelName"]
                self._store.download_channel(channel, folder, index, len(bases))
            self._install_program(base)

    def _install_program(self, base: Path) -> None:
        source = script_mode.decode(self._request["HyperParameters"])["sagemaker_submit_directory"]
        archive = self.folder / f"{base.name}.tar.gz"
        self._store.download_file(source, archive)
        try:
            unpack(archive, base / "code")
        except ArchiveError as error:
            msg = f"ClientError: {source} is {error}"
            raise FailedError(msg) from error
        if (base / "code" / "setup.py").exists():
            msg = (
                f"ClientError: {source} has a setup.py, which the toolkit would install: the local AWS installs nothing"
            )
            raise FailedError(msg)
        unmet = unmet_requirements(base / "code" / "requirements.txt")
        if unmet:
            msg = (
                f"ClientError: requirements.txt asks for {', '.join(unmet)}, which this Python does not have; "
                "the local AWS installs nothing: install it with pip"
            )
            raise FailedError(msg)

    def _train_with_checkpoints(self, bases: Sequence[Path]) -> str:
        config = self._request.get("CheckpointConfig")
        if config is None:
            return self._train(bases)
        folders = [checkpoint_folder(config, base) for base in bases]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            self._store.download_prefix(config["S3Uri"].rstrip("/") + "/", folder)
        sync = CheckpointSync(self._store, folders, config["S3Uri"], _CHECKPOINT_SECONDS)
        try:
            return self._train(bases)
        finally:
            sync.close()

    def _train(self, bases: Sequence[Path]) -> str:
        self._on_phase("Training")
        logs = self._account.client("logs", self._request["RoleArn"])  # as on AWS: the role must allow it
        started = int(time.time())
        streams = [LogStream(logs, LOG_GROUP, f"{self.name}/{host}-{started}") for host in self._hosts]
        try:
            with _reserved_port() as master_port:
                for base, stream in zip(bases, streams, strict=True):
                    self._containers.append(self._start(base, stream, master_port))
                return self._watch(bases)
        finally:
            # One that failed takes the others with it at once; a stop that was asked for, or the time limit, does not.
            stop_all(self._containers, lambda: self._kill_at if self._stopping.is_set() else 0.0)
            for stream in streams:
                stream.close()

    def _start(self, base: Path, stream: LogStream, master_port: int) -> Container:
        def take(line: str) -> None:
            stream.add(line)
            for name, pattern in self._metrics:
                found = pattern.search(line)
                if found:
                    self._take_metric(name, found.group(1) if found.groups() else found.group())

        variables = {
            **self._account.role_environment(self._request["RoleArn"]),
            "TRAINING_JOB_ARN": self._arn,
            **self._shared_machine(),
            **self._request.get("Environment", {}),
            **script_mode.process_group(master_port),
            **script_mode.environment(base, self.name),
        }
        return Container(script_mode.command(base), clean_environment(base, variables), base / "code", take)

    def _shared_machine(self) -> dict[str, str]:
        """Return what keeps hosts from taking all cores each: here they are one machine."""
        if len(self._hosts) == 1:
            return {}
        return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // len(self._hosts)))}

    def _take_metric(self, name: str, text: str) -> None:
        try:
            self._on_metric(name, float(text), datetime.now(UTC))
        except ValueError:
            return  # the pattern caught something that is no number; CloudWatch drops it too

    def _watch(self, bases: Sequence[Path]) -> str:
        condition = self._request.get("StoppingCondition", {})
        deadline = time.monotonic() + condition.get("MaxRuntimeInSeconds", _DEFAULT_RUNTIME_SECONDS)
        while True:
            codes = [container.returncode for container in self._containers]
            failed = [i for i, code in enumerate(codes) if code]
            if self._stopping.is_set():
                return "Stopped"
            if failed:
                self._containers[failed[0]].wait()
                raise FailedError(self._reason(bases[failed[0]], self._containers[failed[0]]))
            if all(code == 0 for code in codes):
                for container in self._containers:
                    container.wait()
                return "Completed"
            if time.monotonic() >= deadline:
                self.stop()
                return "MaxRuntimeExceeded"
            self._stopping.wait(_POLL_SECONDS)

    def _reason(self, base: Path, container: Container) -> str:
        """Return what the script says of its failure; otherwise its last lines, as the toolkit reports them."""
        code = container.returncode
        own = base / "output" / "failure"
        if own.exists():
            words = own.read_text(encoding="utf-8", errors="replace")
            return f"AlgorithmError: {words}, exit code: {code}"[:_REASON_LIMIT]
        line = " ".join(script_mode.command(base))[:_COMMAND_LIMIT]
        head, end = f'AlgorithmError: ExecuteUserScriptError:\nExitCode {code}\nErrorMessage "', f'"\nCommand "{line}"'
        end += f", exit code: {code}"
        words = "\n".join(container.tail[-_LINES_IN_REASON:])
        # The end of a traceback says what happened: cut from the front.
        return f"{head}{words[-(_REASON_LIMIT - len(head) - len(end)) :]}{end}"

    def _upload(self, bases: Sequence[Path]) -> None:
        output = f"{self._request['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{self.name}/output"
        self._upload_packed([base / "model" for base in bases], f"{output}/model.tar.gz", even_empty=True)
        self._upload_packed([base / "output" / "data" for base in bases], f"{output}/output.tar.gz", even_empty=False)

    def _upload_packed(self, folders: Sequence[Path], uri: str, *, even_empty: bool) -> None:
        try:
            files = files_below(folders)
        except ArchiveError as error:
            msg = f"ClientError: Artifact upload failed: {error}"
            raise UploadError(msg) from error
        if not files and not even_empty:
            return
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".tar.gz") as packed:
            pack(files, packed)
            packed.flush()
            self._store.upload_file(Path(packed.name), uri)


@contextmanager
def _reserved_port() -> Iterator[int]:
    """Reserve a port for a job's own: bound and not listening, so that it is given to no other process meanwhile.

    With SO_REUSEADDR the job can listen on it nevertheless, as every server that sets it too, torch's among them.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((script_mode.LOOPBACK, 0))
        yield int(held.getsockname()[1])

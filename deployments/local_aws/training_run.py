"""One training job as it runs: folders, data, containers, and what is left of them in S3."""

import re
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deployments.local_aws import script_mode
from deployments.local_aws.account import Account
from deployments.local_aws.archives import files_below, pack, unpack
from deployments.local_aws.containers import Container, clean_environment
from deployments.local_aws.log_streams import LogStream
from deployments.local_aws.object_store import CheckpointSync, DownloadError, ObjectStore
from deployments.local_aws.requirements import unmet_requirements

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
_REASON_LIMIT = 1024
_LINES_IN_REASON = 12
_POLL_SECONDS = 0.05
_CHECKPOINT_SECONDS = 5.0


class FailedError(Exception):
    """The job failed; the text is its FailureReason."""


class TrainingRun:
    """Runs a job's containers from their data to their model.

    Args:
        account: Whose job it is.
        request: The CreateTrainingJob request.
        on_phase: Called with each secondary status as it begins.
        on_metric: Called with name, value and time of each metric that the lines carry.
    """

    def __init__(
        self,
        account: Account,
        request: dict[str, Any],
        on_phase: Callable[[str], None],
        on_metric: Callable[[str, float, datetime], None],
    ) -> None:
        self._account, self._request = account, request
        self._on_phase, self._on_metric = on_phase, on_metric
        self.name: str = request["TrainingJobName"]
        self._store = ObjectStore(account.client("s3", request["RoleArn"]), account.root / "cache")
        count = request["ResourceConfig"]["InstanceCount"]
        self._hosts = [f"algo-{i + 1}" for i in range(count)]
        self._folder = account.root / "training-jobs" / self.name
        self._metrics = [
            (metric["Name"], re.compile(metric["Regex"]))
            for metric in request["AlgorithmSpecification"].get("MetricDefinitions", [])
        ]
        self._containers: list[Container] = []
        self._stopping = threading.Event()
        self._grace_seconds = 0.0

    def stop(self, grace_seconds: float) -> None:
        """Ask the containers to end, and end them after the grace."""
        self._grace_seconds = grace_seconds
        self._stopping.set()

    def run(self) -> str:
        """Run to the end; return the secondary status that it ended with.

        Raises:
            FailedError: It failed.
        """
        bases = [self._folder / host for host in self._hosts]
        try:
            self._on_phase("Downloading")
            self._prepare(bases)
            with_checkpoints = self._checkpoints(bases)
            try:
                self._on_phase("Training")
                ended = self._train(bases)
            finally:
                if with_checkpoints:
                    with_checkpoints.close()
        except DownloadError as error:
            raise FailedError(str(error)[:_REASON_LIMIT]) from error
        self._on_phase("Uploading")
        self._upload(bases)
        return ended

    def _prepare(self, bases: Sequence[Path]) -> None:
        channels = self._request.get("InputDataConfig", [])
        for index, (base, host) in enumerate(zip(bases, self._hosts, strict=True)):
            for name in ("model", "output/data", "checkpoints", "code", "input/data"):
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
        archive = base / "program.tar.gz"
        self._store.download_file(source, archive)
        try:
            unpack(archive, base / "code")
        except (tarfile.TarError, OSError, EOFError) as error:
            msg = f"ClientError: {source} is not a tar.gz that can be unpacked: {error}"
            raise FailedError(msg) from error
        unmet = unmet_requirements(base / "code" / "requirements.txt")
        if unmet:
            msg = (
                f"ClientError: requirements.txt asks for {', '.join(unmet)}, which this Python does not have; "
                "the local AWS installs nothing: install it with pip"
            )
            raise FailedError(msg)

    def _checkpoints(self, bases: Sequence[Path]) -> CheckpointSync | None:
        uri = self._request.get("CheckpointConfig", {}).get("S3Uri")
        if uri is None:
            return None
        folders = [base / "checkpoints" for base in bases]
        for folder in folders:
            self._store.download_prefix(uri.rstrip("/") + "/", folder)
        return CheckpointSync(self._store, folders, uri, _CHECKPOINT_SECONDS)

    def _train(self, bases: Sequence[Path]) -> str:
        logs = self._account.client("logs")
        started = int(time.time())
        streams = [LogStream(logs, LOG_GROUP, f"{self.name}/{host}-{started}") for host in self._hosts]
        try:
            if not self._stopping.is_set():
                for base, stream in zip(bases, streams, strict=True):
                    self._containers.append(self._start(base, stream))
            return self._watch(bases)
        finally:
            for container in self._containers:
                container.stop(self._grace_seconds)
            for stream in streams:
                stream.close()

    def _start(self, base: Path, stream: LogStream) -> Container:
        def take(line: str) -> None:
            stream.add(line)
            for name, pattern in self._metrics:
                found = pattern.search(line)
                if found:
                    self._take_metric(name, found.group(1) if found.groups() else found.group())

        variables = {
            **self._account.role_environment(self._request["RoleArn"]),
            **self._request.get("Environment", {}),
            **script_mode.environment(base, self.name),
        }
        return Container(script_mode.command(base), clean_environment(base, variables), base / "code", take)

    def _take_metric(self, name: str, text: str) -> None:
        try:
            self._on_metric(name, float(text), datetime.now(UTC))
        except ValueError:
            return  # the pattern caught something that is no number; CloudWatch drops it too

    def _watch(self, bases: Sequence[Path]) -> str:
        deadline = time.monotonic() + self._request["StoppingCondition"].get("MaxRuntimeInSeconds", 86_400)
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
                return "MaxRuntimeExceeded"
            self._stopping.wait(_POLL_SECONDS)

    def _reason(self, base: Path, container: Container) -> str:
        """Return what the script says of its failure; otherwise its last lines, as the toolkit reports them."""
        code = container.returncode
        own = base / "output" / "failure"
        if own.exists():
            words = own.read_text(encoding="utf-8", errors="replace")
            return f"AlgorithmError: {words}, exit code: {code}"[:_REASON_LIMIT]
        head = f"AlgorithmError: ExecuteUserScriptError:\nExitCode {code}\nErrorMessage "
        end = f"\nCommand {script_mode.command(base)[2]}, exit code: {code}"
        words = "\n".join(container.tail[-_LINES_IN_REASON:])
        # The end of a traceback says what happened: cut from the front.
        return f"{head}{words[-(_REASON_LIMIT - len(head) - len(end)) :]}{end}"

    def _upload(self, bases: Sequence[Path]) -> None:
        output = f"{self._request['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{self.name}/output"
        self._upload_packed([base / "model" for base in bases], f"{output}/model.tar.gz", even_empty=True)
        self._upload_packed([base / "output" / "data" for base in bases], f"{output}/output.tar.gz", even_empty=False)

    def _upload_packed(self, folders: Sequence[Path], uri: str, *, even_empty: bool) -> None:
        files = files_below(folders)
        if not files and not even_empty:
            return
        with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".tar.gz") as packed:
            pack(files, packed)
            packed.flush()
            self._store.upload_file(Path(packed.name), uri)

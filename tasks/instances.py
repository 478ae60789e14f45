"""Training on a plain EC2 instance: launched, sent its script through SSM, and ended whatever happens."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from prefect import Task
from prefect.client.schemas.objects import State, TaskRun

from tasks.aws import instances
from tasks.aws.errors import FlowsError, JobFailedError, sentence_for
from tasks.aws.instance_requests import command_request, instance_name, results_uri
from tasks.aws.instances import Launch
from tasks.aws.jobs import Description, How, Patience
from tasks.aws.logs import LogFollower
from tasks.aws.prices import cost_usd
from tasks.aws.settings import Settings, instance_venv, poll_seconds
from tasks.cancellation import CancelWatch, end_if_cancelled
from tasks.contracts import Ec2TrainingSpec, TrainingResult
from tasks.retries import is_transient, retried
from tasks.runs import ABANDONED, EpochProgress, Progress, current_owner, run_logger
from tasks.signals import signal_waits

_AGENT_SECONDS = 600.0
_SENT_BY_ANOTHER_SECONDS = 120.0
# Until EC2 lists an instance that it has launched.
_LISTED_SECONDS = 20.0
_LISTED_POLL_SECONDS = 2.0


def _may_launch_again(asked: "Task[..., Any]", task_run: TaskRun, state: State[Any]) -> bool:
    """Tell Prefect whether another try is worth it; who has pressed Ctrl-C does not wait for one."""
    return not signal_waits() and is_transient(asked, task_run, state)


@retried("find the image {parameter}")
def find_machine_image(parameter: str) -> tuple[str, str]:
    """Return the machine image that a public SSM parameter names, and the name of its root device.

    Raises:
        RequestRefusedError: The region has no such parameter.
    """
    image_id, root_device = instances.find_image(parameter)
    run_logger().info("Machine image %s (%s)", image_id, parameter)
    return image_id, root_device


@retried("look for a training on {spec.compute.instance_type}")
def find_finished_training(spec: Ec2TrainingSpec, settings: Settings) -> TrainingResult | None:
    """Return the result of this very training if an instance has left it in S3 before."""
    name = instance_name(spec, current_owner(timedelta()))
    return _result(settings, name, "reused")


@retried("launch {spec.compute.instance_type}", when=_may_launch_again)
def launch_instance(spec: Ec2TrainingSpec, settings: Settings) -> Launch:
    """Launch the instance.

    Safe to retry: one with this content that runs is adopted.

    Raises:
        CapacityError: There is no capacity for any of the types.
        RequestRefusedError: AWS refused for another reason.
        RunCancelledError: Somebody has cancelled the flow run.
    """
    end_if_cancelled()
    owner = current_owner(timedelta(seconds=instances.longest_seconds(spec)))
    launch = instances.launch_once(spec, settings, owner, _until_listed())
    market = "spot" if launch.spot else "on-demand"
    run_logger().info("Instance %s (%s, %s): %s", launch.instance_id, launch.instance_type, market, launch.how)
    return launch


@retried("start {launch.name} on {launch.instance_id}")
def start_command(launch: Launch, spec: Ec2TrainingSpec, settings: Settings) -> str:
    """Wait for the instance's agent, send it the training script, and return the command's id.

    Safe to retry: a command that was sent is found.

    Raises:
        InstanceLostError: The instance went away.
        DeadlineError: The agent did not come.
        RunCancelledError: Somebody has cancelled the flow run.
    """
    cancellation = CancelWatch()
    progress = Progress("ec2-progress", f"Start of instance {launch.instance_id}")
    instances.await_agent(launch, Patience(poll_seconds(), _AGENT_SECONDS), lambda _instance: cancellation.check())
    progress.update(1.0)
    run_logger().info("Instance %s: its agent is online", launch.instance_id)

    def request(instance: Description) -> dict[str, object]:
        return command_request(spec, settings, launch.name, instance, instance_venv())

    return instances.send_once(launch, request, Patience(poll_seconds(), _SENT_BY_ANOTHER_SECONDS))


@retried("await {launch.name} on {launch.instance_id}")
def await_command(launch: Launch, command_id: str, spec: Ec2TrainingSpec, settings: Settings) -> TrainingResult:
    """Wait for the script, hand its lines over as they are written, and return what came of it.

    Safe to retry: it only looks.

    Raises:
        JobFailedError: The script failed.
        JobStoppedError: The command was cancelled, or ran out of its time.
        InstanceLostError: The instance went away under it.
        DeadlineError: The script was not done when the deadline passed.
        RunCancelledError: Somebody has cancelled the flow run.
    """
    patience = Patience(poll_seconds(), instances.longest_seconds(spec))
    watch = _Watch(launch, command_id, settings, spec.hyperparameters.epochs)
    instances.await_command(launch, command_id, patience, watch.look, watch.drained_tail(patience))
    watch.end(patience)
    result = _result(settings, launch.name, launch.how)
    if result is None:
        reason = "the script ended well and left no result in S3"
        raise JobFailedError(instances.COMMAND, command_id, "Success", reason)
    return result


@contextmanager
def ended_if_lost(spec: Ec2TrainingSpec) -> Iterator[None]:
    """End the instance when its launch ends in an error that keeps it from us: a lost answer, or one of Prefect's own.

    Signals are to be held meanwhile: one that cuts the launch in two may come before EC2 has an instance to be found.
    """
    try:
        yield
    except FlowsError:  # AWS has said no, and there is nothing to look for
        raise
    except BaseException:
        _end_lost(spec)
        raise


def _end_lost(spec: Ec2TrainingSpec) -> None:
    owner = current_owner(timedelta())
    try:
        launch = instances.find_listed(spec, owner, _until_listed())
        if launch and launch.ours:
            _end(launch, "its launch came to no good end")
    except (FlowsError, ClientError, BotoCoreError) as error:
        name, seconds = instance_name(spec, owner), instances.longest_seconds(spec)
        run_logger().error(
            "Whether an instance %s runs is not known (%s); one that does ends itself after %.0f s",
            name,
            sentence_for(error),
            seconds,
        )


def _until_listed() -> Patience:
    return Patience(min(poll_seconds(), _LISTED_POLL_SECONDS), _LISTED_SECONDS)


@contextmanager
def ended_afterwards(launch: Launch) -> Iterator[None]:
    """End the instance when the block is left, whatever happens in it.

    One that this flow run only adopted belongs to another run: it is left to that, except that the training is done.
    """
    try:
        yield
    except BaseException as error:
        if launch.ours:
            _end(launch, "nobody waits for it" if isinstance(error, ABANDONED) else "its training failed")
        raise
    _end(launch, "its training is done")


def _end(launch: Launch, why: str) -> None:
    if instances.terminate(launch.instance_id):
        run_logger().info("Instance %s is being terminated: %s", launch.instance_id, why)


class _Watch:
    """What is done at each look at a running command: new lines, progress."""

    def __init__(self, launch: Launch, command_id: str, settings: Settings, epochs: int) -> None:
        self._logger, self._name, self._cancellation = run_logger(), launch.name, CancelWatch()
        self._progress = EpochProgress("ec2-progress", f"Training {launch.name} on {launch.instance_id}", epochs)
        prefix = f"{command_id}/{launch.instance_id}/aws-runShellScript"
        self._output, self._complaints = (
            LogFollower(settings.command_log_group, f"{prefix}/{stream}", self._take_line, self._logger.warning)
            for stream in ("stdout", "stderr")
        )

    def look(self, _description: Description) -> None:
        self._output.poll()
        self._complaints.poll()
        self._cancellation.check()

    def drained_tail(self, patience: Patience) -> Callable[[], tuple[str, ...]]:
        """Return what fetches the last lines, the late ones too: those of its complaints are the very last."""

        def tail() -> tuple[str, ...]:
            for logs in (self._output, self._complaints):
                logs.drain(lambda: patience.clock.sleep(min(patience.poll_seconds, 2.0)))
            return (*self._output.tail(), *self._complaints.tail())

        return tail

    def end(self, patience: Patience) -> None:
        self.drained_tail(patience)()
        self._progress.end()

    def _take_line(self, host: str, line: str) -> None:
        self._logger.info("[%s/%s] %s", self._name, host, line)
        self._progress.take_line(line)


def _result(settings: Settings, name: str, how: How) -> TrainingResult | None:
    found = instances.read_result(settings, name)
    if found is None:
        return None
    machine, folder = found["machine"], results_uri(settings, name)
    seconds = float(found["billable_seconds"])
    return TrainingResult(
        name=name,
        arn=f"arn:aws:ec2:{settings.region}:{settings.account_id}:instance/{machine['instance_id']}",
        how=how,
        model_s3_uri=f"{folder}/model.tar.gz",
        output_s3_uri=f"{folder}/output.tar.gz",
        instance_type=machine["instance_type"],
        instance_count=1,
        metrics=found["metrics"],
        phase_seconds=found["phase_seconds"],
        billable_seconds=seconds,
        # Spot prices change by the hour; on-demand's is what it costs at most.
        cost_usd=cost_usd("ec2", machine["instance_type"], settings.region, 1, seconds),
    )

"""SageMaker training jobs: start one, wait for it, read what it wrote."""

import io
import json
import tarfile
from collections.abc import Callable
from datetime import timedelta
from urllib.parse import urlsplit

from tasks.aws.clients import client
from tasks.aws.errors import CapacityError, FlowsError, JobFailedError
from tasks.aws.images import training_image_uri
from tasks.aws.jobs import TRAINING_JOBS, Description, Patience, Submission, await_end, describe, find, submit_once
from tasks.aws.logs import TRAINING_GROUP, LogFollower
from tasks.aws.prices import cost_usd
from tasks.aws.requests import check_instance_type, training_job_request
from tasks.aws.settings import Settings, poll_seconds
from tasks.cancellation import CancelWatch, end_if_cancelled
from tasks.contracts import TrainingReport, TrainingResult, TrainingSpec
from tasks.retries import retried
from tasks.runs import EpochProgress, current_owner, run_logger

# A job may wait for its machines longer than it may run; after that, somebody should look.
_QUEUE_SECONDS = 3600
_LIFETIME = timedelta(days=2)
_NO_CAPACITY = "CapacityError"  # how SageMaker begins the reason of a job that found no machine


@retried("find the image for {instance_type}")
def find_training_image(settings: Settings, instance_type: str) -> str:
    """Return the URI of the image for a machine.

    Raises:
        RequestRefusedError: SageMaker knows no such machine.
    """
    model = client("sagemaker").meta.service_model
    check_instance_type(instance_type, tuple(model.shape_for("TrainingInstanceType").enum), "training")
    return training_image_uri(settings.region, instance_type)


@retried("look for a training on {spec.compute.machines}")
def find_training_job(spec: TrainingSpec, settings: Settings) -> Submission | None:
    """Return the job with this content that runs or has completed, if there is one; safe to retry: it only looks."""
    return find(TRAINING_JOBS, training_job_request(spec, settings, current_owner(_LIFETIME)))


@retried("start a training on {spec.compute.machines}")
def start_training_job(spec: TrainingSpec, settings: Settings) -> Submission:
    """Start the job, and return its name.

    Safe to retry: a job with this content that runs is adopted, one that completed is reused.

    Raises:
        RunCancelledError: Somebody has cancelled the flow run.
    """
    end_if_cancelled()
    submission = submit_once(TRAINING_JOBS, training_job_request(spec, settings, current_owner(_LIFETIME)))
    run_logger().info("Training job %s: %s", submission.name, submission.how)
    return submission


@retried("await {submission.name}")
def await_training_job(submission: Submission, spec: TrainingSpec, settings: Settings) -> TrainingResult:
    """Wait for the job, hand its log lines over as they are written, and return what came of it.

    Safe to retry: it only looks.

    Raises:
        CapacityError: SageMaker had no machine of that type.
        JobFailedError: The job failed.
        JobStoppedError: The job was stopped, or ran into its time limit.
        DeadlineError: The job was not done when the deadline passed.
        RunCancelledError: Somebody has cancelled the flow run.
    """
    patience = Patience(poll_seconds(), spec.compute.max_runtime_seconds + _QUEUE_SECONDS)
    if submission.how == "reused":
        return _result(submission, describe(TRAINING_JOBS, submission.name) or {}, settings)
    watch = _Watch(submission.name, spec.hyperparameters.epochs)
    try:
        description = await_end(TRAINING_JOBS, submission.name, patience, watch.look, watch.drained_tail(patience))
    except JobFailedError as error:
        if error.reason.startswith(_NO_CAPACITY):
            raise CapacityError((spec.compute.instance_type,)) from error
        raise
    watch.end(patience)
    return _result(submission, description, settings)


@retried("fetch the report of {result.name}")
def fetch_training_report(result: TrainingResult) -> TrainingReport:
    """Read report.json out of what the job wrote beside its model.

    Raises:
        FlowsError: The job completed without a report: it was not this training program that ran.
    """
    place = urlsplit(result.output_s3_uri)
    body = client("s3").get_object(Bucket=place.netloc, Key=place.path.lstrip("/"))["Body"].read()
    # Only this one member is read, into memory: nothing of the archive is unpacked.
    with tarfile.open(fileobj=io.BytesIO(body), mode="r:gz") as archive:
        names = [name for name in archive.getnames() if name.rsplit("/", 1)[-1] == "report.json"]
        member = archive.extractfile(names[0]) if names else None
        if member is None:
            msg = f"The training job {result.name} wrote no report.json: its program is not this project's"
            raise FlowsError(msg)
        return TrainingReport.model_validate(json.load(member))


class _Watch:
    """What is done at each look at a running job: new status, new lines, progress."""

    def __init__(self, name: str, epochs: int) -> None:
        self._logger, self._status = run_logger(), ""
        self._progress = EpochProgress("training-progress", f"Training job {name}", epochs)
        self._logs = LogFollower(TRAINING_GROUP, f"{name}/", self._take_line, self._logger.warning)
        self._name, self._cancellation = name, CancelWatch()

    def look(self, description: Description) -> None:
        status = description.get("SecondaryStatus", "")
        if status != self._status:
            self._status = status
            self._logger.info("Training job %s: %s", self._name, status)
        self._logs.poll()
        self._cancellation.check()

    def _take_line(self, host: str, line: str) -> None:
        self._logger.info("[%s/%s] %s", self._name, host, line)
        self._progress.take_line(line)

    def end(self, patience: Patience) -> None:
        self._drain(patience)
        self._progress.end()

    def drained_tail(self, patience: Patience) -> Callable[[], tuple[str, ...]]:
        """Return what fetches the last lines, the late ones too, for an error's text."""

        def tail() -> tuple[str, ...]:
            self._drain(patience)
            return self._logs.tail()

        return tail

    def _drain(self, patience: Patience) -> None:
        self._logs.drain(lambda: patience.clock.sleep(min(patience.poll_seconds, 2.0)))


def _result(submission: Submission, description: Description, settings: Settings) -> TrainingResult:
    resources = description["ResourceConfig"]
    output = description["OutputDataConfig"]["S3OutputPath"].rstrip("/")
    billable = float(description.get("BillableTimeInSeconds", 0))
    return TrainingResult(
        name=submission.name,
        arn=submission.arn,
        how=submission.how,
        model_s3_uri=description["ModelArtifacts"]["S3ModelArtifacts"],
        output_s3_uri=f"{output}/{submission.name}/output/output.tar.gz",
        instance_type=resources["InstanceType"],
        instance_count=resources["InstanceCount"],
        metrics={metric["MetricName"]: float(metric["Value"]) for metric in description.get("FinalMetricDataList", [])},
        phase_seconds=_phase_seconds(description),
        billable_seconds=billable,
        cost_usd=cost_usd("training", resources["InstanceType"], settings.region, resources["InstanceCount"], billable),
    )


def _phase_seconds(description: Description) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for phase in description.get("SecondaryStatusTransitions", []):
        if phase.get("EndTime"):
            lasted = (phase["EndTime"] - phase["StartTime"]).total_seconds()
            seconds[phase["Status"]] = seconds.get(phase["Status"], 0.0) + lasted
    return seconds

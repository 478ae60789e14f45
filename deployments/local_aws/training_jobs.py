"""SageMaker's training jobs: asked for, run, described, stopped."""

import math
import shutil
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from deployments.local_aws.account import Account
from deployments.local_aws.protocol import AwsError, Operation
from deployments.local_aws.records import Record, Records, invalid, listing
from deployments.local_aws.tags import Tags
from deployments.local_aws.training_requests import check_training_request
from deployments.local_aws.training_run import FailedError, TrainingRun

_MESSAGES = {
    "Starting": "Starting the training job",
    "Downloading": "Downloading input data",
    "Training": "Training image download completed. Training in progress.",
    "Uploading": "Uploading generated training model",
    "Stopping": "Stopping the training job",
    "Completed": "Training job completed",
    "Stopped": "Training job stopped",
    "MaxRuntimeExceeded": "Training job runtime exceeded MaxRuntimeInSeconds provided",
    "Failed": "Training job failed",
}
_ENDED = ("Completed", "Failed", "Stopped")
_SUMMARY = (
    "TrainingJobName",
    "TrainingJobArn",
    "CreationTime",
    "TrainingEndTime",
    "LastModifiedTime",
    "TrainingJobStatus",
    "SecondaryStatus",
)
# Everything of a request but its tags is in the description, as it was asked for.
_NOT_DESCRIBED = ("Tags",)


class TrainingJobs:
    """The training jobs of an account; each runs in a thread of its own.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html
    """

    stop_grace_seconds = 120.0  # SageMaker's; the local AWS's own shutdown does not wait that long
    shutdown_grace_seconds = 2.0

    def __init__(self, account: Account, tags: Tags) -> None:
        self._account, self._tags = account, tags
        self._records = Records()
        self._runs: dict[str, tuple[TrainingRun, threading.Thread]] = {}

    def operations(self) -> dict[str, Operation]:
        """Return its operations by their API names."""
        return {
            "CreateTrainingJob": self.create,
            "DescribeTrainingJob": self.describe,
            "StopTrainingJob": self.stop_job,
            "ListTrainingJobs": self.list,
        }

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        """Accept a job and begin to run it."""
        return self.launch(request)

    def launch(
        self,
        request: dict[str, Any],
        *,
        tuning_job_arn: str | None = None,
        on_metric: Callable[[str, float], None] = lambda _name, _value: None,
        on_end: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        """Accept a job and begin to run it, for a tuning job that hears of its metrics and its end."""
        name = request["TrainingJobName"]
        check_training_request(request)
        arn = self._arn(name)
        record = self._new_record(request, arn) | ({"TuningJobArn": tuning_job_arn} if tuning_job_arn else {})

        def take_metric(name: str, value: float, when: datetime) -> None:
            self._take_metric(record, name, value, when)
            on_metric(name, value)

        run = TrainingRun(  # the role is assumed here: one that cannot be is refused before there is a job
            self._account,
            arn,
            request,
            grace_seconds=self.stop_grace_seconds,
            on_phase=lambda phase: self._progress(record, phase),
            on_metric=take_metric,
        )
        thread = threading.Thread(target=self._run, args=(run, record, on_end), daemon=True, name=f"job-{name}")
        with self._records.lock:
            self._records.add(name, record, _clash(arn))
            self._tags.keep(arn, request)
            # A job of an earlier life of this folder may have left its files.
            shutil.rmtree(run.folder, ignore_errors=True)
            self._runs[name] = (run, thread)
            thread.start()
        return {"TrainingJobArn": arn}

    def describe(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return what there is to know of a job."""
        with self._records.lock:
            record = self._get(request["TrainingJobName"])
            transitions = [dict(transition) for transition in record["SecondaryStatusTransitions"]]
            return {**record, "SecondaryStatusTransitions": transitions}

    def list(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return a page of jobs."""
        return listing(
            self._records,
            request,
            key="TrainingJobSummaries",
            prefix="TrainingJob",
            members=_SUMMARY,
            status="TrainingJobStatus",
        )

    def stop_job(self, request: dict[str, Any]) -> dict[str, Any]:
        """Begin to stop a job; what it has of a model is still uploaded."""
        name = request["TrainingJobName"]
        with self._records.lock:
            record = self._get(name)
            status = record["TrainingJobStatus"]
            if status in _ENDED:
                message = f"The request was rejected because the training job is in status {status}."
                raise invalid(message)
            if status == "InProgress":
                record["TrainingJobStatus"] = "Stopping"
                self._enter(record, "Stopping")
        self._runs[name][0].stop()
        return {}

    def stop(self) -> None:
        """End every job that runs."""
        with self._records.lock:
            runs = list(self._runs.values())
        for run, _thread in runs:
            run.stop(self.shutdown_grace_seconds)
        for _run, thread in runs:
            thread.join()

    def _arn(self, name: str) -> str:
        return f"arn:aws:sagemaker:{self._account.region}:{self._account.account_id}:training-job/{name}"

    def _get(self, name: str) -> Record:
        return self._records.get(name, invalid("Requested resource not found."))

    def _new_record(self, request: dict[str, Any], arn: str) -> Record:
        now = datetime.now(UTC)
        output = request["OutputDataConfig"]["S3OutputPath"].rstrip("/")
        record: Record = {
            "EnableNetworkIsolation": False,
            "EnableInterContainerTrafficEncryption": False,
            "EnableManagedSpotTraining": False,
            **{member: value for member, value in request.items() if member not in _NOT_DESCRIBED},
            "TrainingJobArn": arn,
            "TrainingJobStatus": "InProgress",
            "CreationTime": now,
            "LastModifiedTime": now,
            "SecondaryStatusTransitions": [],
            "FinalMetricDataList": [],
            "ModelArtifacts": {"S3ModelArtifacts": f"{output}/{request['TrainingJobName']}/output/model.tar.gz"},
        }
        self._enter(record, "Starting")
        return record

    def _run(self, run: TrainingRun, record: Record, on_end: Callable[[], None]) -> None:
        status, secondary, reason = "Failed", "Failed", ""
        try:
            secondary = run.run()
            status = "Completed" if secondary == "Completed" else "Stopped"
        except FailedError as error:
            reason = str(error)
        except Exception as error:
            # Whatever it was, the job must not be InProgress for ever; and it must be seen.
            reason = f"InternalServerError: the local AWS failed: {error!r}"
            raise
        finally:
            # An instance is gone after its job: what is to stay is in S3 and in the logs.
            shutil.rmtree(run.folder, ignore_errors=True)
            self._end(record, status, secondary, reason)
            on_end()

    def _progress(self, record: Record, phase: str) -> None:
        """Enter a phase of the run; one that is being stopped does not begin to train any more."""
        with self._records.lock:
            if record["TrainingJobStatus"] == "InProgress" or phase == "Uploading":
                self._enter(record, phase)

    def _enter(self, record: Record, phase: str) -> None:
        with self._records.lock:
            now = datetime.now(UTC)
            transitions = record["SecondaryStatusTransitions"]
            if transitions:
                transitions[-1]["EndTime"] = now
            transitions.append({"Status": phase, "StartTime": now, "StatusMessage": _MESSAGES[phase]})
            record |= {"SecondaryStatus": phase, "LastModifiedTime": now}
            if phase == "Downloading":
                record["TrainingStartTime"] = now  # billing begins

    def _end(self, record: Record, status: str, secondary: str, reason: str = "") -> None:
        with self._records.lock:
            self._enter(record, secondary)
            now = record["LastModifiedTime"]
            record["SecondaryStatusTransitions"][-1]["EndTime"] = now
            seconds = math.ceil((now - record.get("TrainingStartTime", now)).total_seconds())
            record |= {
                "TrainingEndTime": now,
                "TrainingTimeInSeconds": seconds,
                "BillableTimeInSeconds": seconds,
                "TrainingJobStatus": status,
            }
            if reason:
                record["FailureReason"] = reason

    def _take_metric(self, record: Record, name: str, value: float, when: datetime) -> None:
        with self._records.lock:
            kept = [metric for metric in record["FinalMetricDataList"] if metric["MetricName"] != name]
            record["FinalMetricDataList"] = [*kept, {"MetricName": name, "Value": value, "Timestamp": when}]


def _clash(arn: str) -> AwsError:
    message = (
        f"Job name must be unique within an AWS account and region, and a job with this name already exists ({arn})"
    )
    return AwsError("ResourceInUse", message)

"""SageMaker's hyperparameter tuning jobs: asked for, run, described, stopped."""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from deployments.local_aws.account import Account
from deployments.local_aws.protocol import AwsError, Operation
from deployments.local_aws.records import Record, Records, invalid, listing, page
from deployments.local_aws.tags import Tags
from deployments.local_aws.training_jobs import TrainingJobs
from deployments.local_aws.tuning_descriptions import ENDED, best_of, counters, objective_of, trial_summary
from deployments.local_aws.tuning_requests import TuningConfig, check_trial, read_tuning_request, trial_request
from deployments.local_aws.tuning_run import Known, Trial, TuningRun
from deployments.local_aws.tuning_warm_start import check_parent, check_total

_PRINCIPAL = "sagemaker.amazonaws.com"
_REASON_LIMIT = 1024
_SUMMARY = (
    "HyperParameterTuningJobName",
    "HyperParameterTuningJobArn",
    "HyperParameterTuningJobStatus",
    "Strategy",
    "CreationTime",
    "HyperParameterTuningEndTime",
    "LastModifiedTime",
    "TrainingJobStatusCounters",
    "ObjectiveStatusCounters",
    "ResourceLimits",
)
_NOT_DESCRIBED = ("Tags",)

# By other names: in the class, list is an operation.
_Known = list[Known]
_Summaries = list[Record]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Job:
    record: Record
    run: TuningRun
    thread: threading.Thread


class TuningJobs:
    """The tuning jobs of an account; each runs in a thread of its own, and its trials are training jobs.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateHyperParameterTuningJob.html
    """

    clock = staticmethod(time.monotonic)

    def __init__(self, account: Account, training_jobs: TrainingJobs, tags: Tags) -> None:
        self._account, self._training_jobs, self._tags = account, training_jobs, tags
        self._records = Records()
        self._jobs: dict[str, _Job] = {}

    def operations(self) -> dict[str, Operation]:
        """Return its operations by their API names."""
        return {
            "CreateHyperParameterTuningJob": self.create,
            "DescribeHyperParameterTuningJob": self.describe,
            "StopHyperParameterTuningJob": self.stop_job,
            "ListHyperParameterTuningJobs": self.list,
            "ListTrainingJobsForHyperParameterTuningJob": self.list_trials,
        }

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        """Accept a tuning job and begin to run it."""
        name = request["HyperParameterTuningJobName"]
        config = read_tuning_request(request)
        check_trial(request, config)
        known = self._known(request, config)
        self._account.assume_as_service(request["TrainingJobDefinition"]["RoleArn"], _PRINCIPAL)
        arn = f"arn:aws:sagemaker:{self._account.region}:{self._account.account_id}:hyper-parameter-tuning-job/{name}"
        record = _new_record(request, arn)
        clash = AwsError(
            "ResourceInUse",
            f"A hyperparameter tuning job with the name, {name}, already exists. Choose a different name.",
        )

        def request_of(trial: str, tuned: Mapping[str, str]) -> dict[str, Any]:
            # AWS adds the tags that the tuning job has by then to each training job that it launches.
            return trial_request(request, trial, tuned, self._tags.list({"ResourceArn": arn})["Tags"])

        run = TuningRun(name, arn, config, self._training_jobs, request_of, known=known, clock=self.clock)
        thread = threading.Thread(target=self._run, args=(run, record), daemon=True, name=f"tuning-{name}")
        with self._records.lock:
            self._records.add(name, record, clash)
            self._tags.keep(arn, request)
            self._jobs[name] = _Job(record, run, thread)
            thread.start()
        return {"HyperParameterTuningJobArn": arn}

    def describe(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return what there is to know of a tuning job."""
        job = self._get(request["HyperParameterTuningJobName"])
        with self._records.lock:
            described = {
                name: value for name, value in job.record.items() if name not in ("Strategy", "ResourceLimits")
            }
        summaries = self._summaries(job)
        end = described.get("HyperParameterTuningEndTime", datetime.now(UTC))
        described |= counters(summaries) | {
            "TuningJobCompletionDetails": {"NumberOfTrainingJobsObjectiveNotImproving": job.run.not_improving},
            "ConsumedResources": {"RuntimeInSeconds": int((end - described["CreationTime"]).total_seconds())},
        }
        if best := best_of(summaries):
            described["BestTrainingJob"] = best
        warm_start = described.get("WarmStartConfig", {})
        if warm_start.get("WarmStartType") == "IdenticalDataAndAlgorithm":
            of_parents = [one for name in _parents(warm_start) for one in self._summaries(self._get(name))]
            if overall := best_of([*summaries, *of_parents]):
                described["OverallBestTrainingJob"] = overall
        return described

    def list(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return a page of tuning jobs."""
        counted = Records()
        with self._records.lock:
            for name, job in self._jobs.items():
                counted.add(name, job.record | counters(self._summaries(job)), invalid(name))
        return listing(
            counted,
            {"SortBy": "Name", "SortOrder": "Ascending", **request},
            key="HyperParameterTuningJobSummaries",
            prefix="HyperParameterTuningJob",
            members=_SUMMARY,
            status="HyperParameterTuningJobStatus",
        )

    def list_trials(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return a page of a tuning job's trials.

        https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListTrainingJobsForHyperParameterTuningJob.html
        """
        summaries = self._summaries(self._get(request["HyperParameterTuningJobName"]))
        status, by = request.get("StatusEquals"), request.get("SortBy", "Name")
        found = [one for one in summaries if status in (None, one["TrainingJobStatus"])]
        if by == "FinalObjectiveMetricValue":
            found = sorted(
                (one for one in found if objective_of(one) is not None), key=lambda one: objective_of(one) or 0
            )
        else:
            field = {"Name": "TrainingJobName", "Status": "TrainingJobStatus"}.get(by, by)
            found.sort(key=lambda one: one[field])
        if request.get("SortOrder") == "Descending":
            found.reverse()
        return page(found, request, "TrainingJobSummaries")

    def stop_job(self, request: dict[str, Any]) -> dict[str, Any]:
        """Begin to stop a tuning job and its trials."""
        job = self._get(request["HyperParameterTuningJobName"])
        with self._records.lock:
            status = job.record["HyperParameterTuningJobStatus"]
            if status in ENDED:
                message = f"The request was rejected because the hyperparameter tuning job is in status {status}."
                raise invalid(message)
            _change(job.record, "Stopping")
        job.run.stop()
        return {}

    def close(self) -> None:
        """Launch no other trial."""
        for job in tuple(self._jobs.values()):
            job.run.close()

    def join(self) -> None:
        """Wait for the end of every tuning job, whose trials somebody else ends."""
        for job in tuple(self._jobs.values()):
            job.thread.join()

    def _run(self, run: TuningRun, record: Record) -> None:
        status, reason = "Failed", ""
        try:
            status, reason = run.run()
        except Exception as error:  # noqa: BLE001 - whatever it was, the job must not be InProgress for ever
            _log.exception("The tuning job %s failed", record["HyperParameterTuningJobName"])
            reason = f"InternalServerError: the local AWS failed: {error!r}"
        finally:
            with self._records.lock:
                was_asked_to_stop = record["HyperParameterTuningJobStatus"] == "Stopping"
                _change(record, "Stopped" if was_asked_to_stop else status)
                record["HyperParameterTuningEndTime"] = record["LastModifiedTime"]
                if reason:
                    record["FailureReason"] = reason[:_REASON_LIMIT]

    def _known(self, request: Mapping[str, Any], config: TuningConfig) -> Sequence[Known]:
        """Return what the parents have tried that has an objective."""
        known = _Known()
        trials = config.most_trials
        for name in _parents(request.get("WarmStartConfig", {})):
            parent = self._get(name)
            check_parent(request, parent.record)
            trials += len(parent.run.trials)
            for summary in self._summaries(parent):
                value = objective_of(summary)
                if value is not None:
                    job = self._training_jobs.describe({"TrainingJobName": summary["TrainingJobName"]})
                    known.append((job["HyperParameters"], value))
        check_total(trials)
        return known

    def _summaries(self, job: _Job) -> _Summaries:
        objective = job.record["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]
        name = job.record["HyperParameterTuningJobName"]
        return [self._summary(trial, objective, name) for trial in tuple(job.run.trials)]

    def _summary(self, trial: Trial, objective: Mapping[str, str], tuning_job: str) -> Record:
        judged = trial.judged  # read first: what has been judged has ended
        training_job = self._training_jobs.describe({"TrainingJobName": trial.name})
        return trial_summary(training_job, trial.hyperparameters, objective, tuning_job, judged=judged)

    def _get(self, name: str) -> _Job:
        message = f"Amazon SageMaker can't find a tuning job called {name}. Type another name."
        with self._records.lock:
            self._records.get(name, AwsError("ResourceNotFound", message))
            return self._jobs[name]


def _new_record(request: Mapping[str, Any], arn: str) -> Record:
    now, config = datetime.now(UTC), request["HyperParameterTuningJobConfig"]
    return {
        **{member: value for member, value in request.items() if member not in _NOT_DESCRIBED},
        "HyperParameterTuningJobArn": arn,
        "HyperParameterTuningJobStatus": "InProgress",
        "CreationTime": now,
        "LastModifiedTime": now,
        # Members of the summary only.
        "Strategy": config["Strategy"],
        "ResourceLimits": config["ResourceLimits"],
    }


def _change(record: Record, status: str) -> None:
    record |= {"HyperParameterTuningJobStatus": status, "LastModifiedTime": datetime.now(UTC)}


def _parents(warm_start: Mapping[str, Any]) -> list[str]:
    return [parent["HyperParameterTuningJobName"] for parent in warm_start.get("ParentHyperParameterTuningJobs", [])]

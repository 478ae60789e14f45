"""The life of a job against a SageMaker that is only a dictionary: every status and every trouble can be played."""

import pickle
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from tasks.aws import jobs
from tasks.aws.errors import (
    DeadlineError,
    IdentityError,
    JobFailedError,
    JobStoppedError,
    RequestRefusedError,
    SettingsDroppedError,
    is_transient_error,
)
from tasks.aws.identity import Owner, tags_of
from tasks.aws.jobs import TRAINING_JOBS, Patience, await_end, dropped_settings, stop, submit_once

OWNER = Owner(flow_run_id="run-1", expires_at="never")
DIGEST = "d" * 64


def refusal(code: str, message: str, status: int = 400) -> ClientError:
    answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "Operation")


class FakeSageMaker:
    """Keeps training jobs by name; `troubles` are raised, one a call, before anything else happens."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []
        self.troubles: dict[str, list[Exception]] = {}
        self.forgets: tuple[str, ...] = ()
        self.script: list[dict[str, Any]] = []

    def _enter(self, call: str) -> None:
        self.calls.append(call)
        if self.troubles.get(call):
            raise self.troubles[call].pop(0)

    def create_training_job(self, **request: Any) -> dict[str, str]:
        self._enter("create")
        name = request["TrainingJobName"]
        if name in self.jobs:
            raise refusal("ResourceInUse", "Job name must be unique")
        arn = f"arn:aws:sagemaker:us-east-1:1:training-job/{name}"
        kept = {key: value for key, value in request.items() if key not in self.forgets}
        self.jobs[name] = kept | {"TrainingJobArn": arn, "TrainingJobStatus": "InProgress"}
        return {"TrainingJobArn": arn}

    def describe_training_job(self, *, TrainingJobName: str) -> dict[str, Any]:  # noqa: N803 - AWS's spelling
        self._enter("describe")
        if TrainingJobName not in self.jobs:
            raise refusal("ValidationException", "Requested resource not found.")
        if self.script:
            self.jobs[TrainingJobName] |= self.script.pop(0)
        return dict(self.jobs[TrainingJobName])

    def stop_training_job(self, *, TrainingJobName: str) -> None:  # noqa: N803
        self._enter("stop")
        if self.jobs[TrainingJobName]["TrainingJobStatus"] != "InProgress":
            raise refusal("ValidationException", "The request was rejected because the job is in status Completed.")
        self.jobs[TrainingJobName]["TrainingJobStatus"] = "Stopped"

    def list_tags(self, *, ResourceArn: str) -> dict[str, Any]:  # noqa: N803
        job = next(job for job in self.jobs.values() if job["TrainingJobArn"] == ResourceArn)
        return {"Tags": job.get("Tags", [])}

    def add_tags(self, *, ResourceArn: str, Tags: list[dict[str, str]]) -> None:  # noqa: N803
        job = next(job for job in self.jobs.values() if job["TrainingJobArn"] == ResourceArn)
        kept = [tag for tag in job["Tags"] if tag["Key"] not in {tag["Key"] for tag in Tags}]
        job["Tags"] = [*kept, *Tags]


class Clock:
    """A clock that sleeps in no time."""

    def __init__(self) -> None:
        self.now, self.pauses = 0.0, list[float]()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)


@pytest.fixture
def sagemaker(monkeypatch: pytest.MonkeyPatch) -> FakeSageMaker:
    fake = FakeSageMaker()
    monkeypatch.setattr(jobs, "client", lambda _service: fake)
    return fake


def request_for(name: str = "flows-train-1", digest: str = DIGEST, owner: Owner = OWNER) -> dict[str, Any]:
    return {"TrainingJobName": name, "RoleArn": "role", "Tags": tags_of(owner, digest)}


def patience(clock: Clock | None = None, deadline: float = 100) -> Patience:
    return Patience(poll_seconds=1, deadline_seconds=deadline, clock=clock or Clock())


# --- submit exactly once --------------------------------------------------------------------------------------------


def test_what_is_not_there_is_created(sagemaker: FakeSageMaker) -> None:
    assert submit_once(TRAINING_JOBS, request_for()).how == "created"


def test_what_runs_is_adopted_and_not_paid_twice(sagemaker: FakeSageMaker) -> None:
    submit_once(TRAINING_JOBS, request_for())
    again = submit_once(TRAINING_JOBS, request_for())
    assert (again.how, again.ours, list(sagemaker.jobs)) == ("adopted", True, ["flows-train-1"])


def test_what_another_run_started_is_adopted_but_not_ours(sagemaker: FakeSageMaker) -> None:
    submit_once(TRAINING_JOBS, request_for())
    other = OWNER.model_copy(update={"flow_run_id": "run-2"})
    assert submit_once(TRAINING_JOBS, request_for(owner=other)).ours is False


def test_all_who_adopt_a_job_say_so_on_it(sagemaker: FakeSageMaker) -> None:
    """The reaper must not take from a living run what a run that is over has asked for, or has adopted too."""
    submit_once(TRAINING_JOBS, request_for())
    for run in ("run-2", "run-3"):
        submit_once(TRAINING_JOBS, request_for(owner=OWNER.model_copy(update={"flow_run_id": run})))
    tags = {tag["Key"]: tag["Value"] for tag in sagemaker.jobs["flows-train-1"]["Tags"]}
    assert tags["sagemaker-flows:adopted-by"] == "run-2 run-3"
    assert tags["sagemaker-flows:flow-run"] == OWNER.flow_run_id


def test_what_completed_is_reused(sagemaker: FakeSageMaker) -> None:
    submit_once(TRAINING_JOBS, request_for())
    sagemaker.jobs["flows-train-1"]["TrainingJobStatus"] = "Completed"
    assert submit_once(TRAINING_JOBS, request_for()).how == "reused"


@pytest.mark.parametrize("status", ["Failed", "Stopped"])
def test_what_failed_or_was_stopped_gets_the_next_attempt(sagemaker: FakeSageMaker, status: str) -> None:
    submit_once(TRAINING_JOBS, request_for())
    sagemaker.jobs["flows-train-1"]["TrainingJobStatus"] = status
    second = submit_once(TRAINING_JOBS, request_for())
    assert (second.name, second.how) == ("flows-train-1-2", "created")


def test_what_is_being_stopped_is_over_before_the_next_attempt_begins(
    sagemaker: FakeSageMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attempts share their checkpoints: two of them must not write at once."""
    monkeypatch.setenv("SAGEMAKER_FLOWS_POLL_SECONDS", "0.001")
    submit_once(TRAINING_JOBS, request_for())
    stopping = {"TrainingJobStatus": "Stopping"}
    sagemaker.script = [stopping, stopping, stopping, {"TrainingJobStatus": "Stopped"}]
    assert submit_once(TRAINING_JOBS, request_for()).name == "flows-train-1-2"
    assert sagemaker.script == []


def test_a_later_attempt_that_runs_is_found_again(sagemaker: FakeSageMaker) -> None:
    submit_once(TRAINING_JOBS, request_for())
    sagemaker.jobs["flows-train-1"]["TrainingJobStatus"] = "Failed"
    submit_once(TRAINING_JOBS, request_for())
    third = submit_once(TRAINING_JOBS, request_for())
    assert (third.name, third.how, len(sagemaker.jobs)) == ("flows-train-1-2", "adopted", 2)


def test_another_content_under_the_name_is_an_error(sagemaker: FakeSageMaker) -> None:
    submit_once(TRAINING_JOBS, request_for(digest="e" * 64))
    with pytest.raises(IdentityError, match="another content"):
        submit_once(TRAINING_JOBS, request_for())


def test_a_refused_request_says_why_and_is_not_tried_again(sagemaker: FakeSageMaker) -> None:
    sagemaker.troubles["create"] = [refusal("ResourceLimitExceeded", "limit for ml.m5.xlarge is 0")]
    with pytest.raises(RequestRefusedError, match=r"limit for ml\.m5\.xlarge is 0.*quota") as caught:
        submit_once(TRAINING_JOBS, request_for())
    assert not is_transient_error(caught.value)


def test_a_role_that_is_still_propagating_is_transient(sagemaker: FakeSageMaker) -> None:
    sagemaker.troubles["create"] = [refusal("ValidationException", "Could not assume role arn:x")]
    with pytest.raises(ClientError) as caught:
        submit_once(TRAINING_JOBS, request_for())
    assert is_transient_error(caught.value)


def test_endless_failure_ends(sagemaker: FakeSageMaker) -> None:
    names = ["flows-train-1", *(f"flows-train-1-{attempt}" for attempt in range(2, 30))]
    for name in names:
        sagemaker.create_training_job(**request_for(name))
        sagemaker.jobs[name]["TrainingJobStatus"] = "Failed"
    with pytest.raises(RequestRefusedError, match="change something first"):
        submit_once(TRAINING_JOBS, request_for())


# --- compare after create -------------------------------------------------------------------------------------------


def test_a_setting_dropped_silently_is_an_error_and_stops_the_job(sagemaker: FakeSageMaker) -> None:
    sagemaker.forgets = ("RoleArn",)
    with pytest.raises(SettingsDroppedError, match="without RoleArn"):
        submit_once(TRAINING_JOBS, request_for())
    assert sagemaker.jobs["flows-train-1"]["TrainingJobStatus"] == "Stopped"


def test_what_aws_adds_is_no_difference() -> None:
    assert dropped_settings({"a": [{"b": 1}]}, {"a": [{"b": 1, "c": 2}], "d": 3}) == []


def test_another_order_is_no_difference() -> None:
    assert dropped_settings({"a": [{"b": 1}, {"b": 2}]}, {"a": [{"b": 2}, {"b": 1}]}) == []


def test_differences_are_named_by_their_path() -> None:
    assert dropped_settings({"a": [{"b": 1}], "c": {"d": 2}}, {"a": [{"b": 9}], "c": None}) == ["a[0].b", "c"]


# --- wait -----------------------------------------------------------------------------------------------------------


def test_only_completed_is_success(sagemaker: FakeSageMaker) -> None:
    submit_once(TRAINING_JOBS, request_for())
    sagemaker.script = [{}, {}, {"TrainingJobStatus": "Completed"}]
    seen: list[str] = []
    description = await_end(
        TRAINING_JOBS, "flows-train-1", patience(), on_look=lambda d: seen.append(d["TrainingJobStatus"])
    )
    assert description["TrainingJobStatus"] == "Completed"
    assert seen == ["InProgress", "InProgress", "Completed"]


def test_a_failure_carries_the_reason_and_the_last_lines_through_pickling(sagemaker: FakeSageMaker) -> None:
    submit_once(TRAINING_JOBS, request_for())
    sagemaker.script = [{"TrainingJobStatus": "Failed", "FailureReason": "AlgorithmError: exit code 1"}]
    with pytest.raises(JobFailedError) as caught:
        await_end(TRAINING_JOBS, "flows-train-1", patience(), log_tail=lambda: ("ValueError: no",))
    error = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - what we pickled ourselves
    assert (error.name, error.reason, error.log_tail) == (
        "flows-train-1",
        "AlgorithmError: exit code 1",
        ("ValueError: no",),
    )
    assert "AlgorithmError" in str(error)
    assert "ValueError: no" in str(error)


def test_stopped_is_not_success(sagemaker: FakeSageMaker) -> None:
    submit_once(TRAINING_JOBS, request_for())
    sagemaker.script = [{"TrainingJobStatus": "Stopped", "SecondaryStatus": "MaxRuntimeExceeded"}]
    with pytest.raises(JobStoppedError, match="time limit"):
        await_end(TRAINING_JOBS, "flows-train-1", patience())


def test_what_is_being_stopped_is_waited_for_since_only_its_end_tells_why(sagemaker: FakeSageMaker) -> None:
    submit_once(TRAINING_JOBS, request_for())
    stopping = {"TrainingJobStatus": "Stopping", "SecondaryStatus": "Stopping"}
    sagemaker.script = [stopping, {"TrainingJobStatus": "Stopped", "SecondaryStatus": "MaxRuntimeExceeded"}]
    with pytest.raises(JobStoppedError, match="time limit"):
        await_end(TRAINING_JOBS, "flows-train-1", patience())


def test_throttling_and_broken_connections_are_patience(sagemaker: FakeSageMaker) -> None:
    submit_once(TRAINING_JOBS, request_for())
    sagemaker.troubles["describe"] = [
        refusal("ThrottlingException", "Rate exceeded"),
        EndpointConnectionError(endpoint_url="http://127.0.0.1"),
        refusal("InternalFailure", "oops", 500),
    ]
    sagemaker.script = [{"TrainingJobStatus": "Completed"}]
    clock = Clock()
    await_end(TRAINING_JOBS, "flows-train-1", patience(clock))
    assert clock.pauses[0] < clock.pauses[1] < clock.pauses[2]


def test_throttling_of_what_is_done_at_each_look_is_patience_too(sagemaker: FakeSageMaker) -> None:
    submit_once(TRAINING_JOBS, request_for())
    sagemaker.script = [{}, {"TrainingJobStatus": "Completed"}]
    troubles = [refusal("ThrottlingException", "Rate exceeded")]

    def on_look(_description: dict[str, Any]) -> None:
        if troubles:
            raise troubles.pop()

    assert await_end(TRAINING_JOBS, "flows-train-1", patience(), on_look)["TrainingJobStatus"] == "Completed"


def test_a_question_aws_refuses_fails_at_once(sagemaker: FakeSageMaker) -> None:
    submit_once(TRAINING_JOBS, request_for())
    sagemaker.troubles["describe"] = [refusal("AccessDeniedException", "no")]
    with pytest.raises(ClientError, match="AccessDenied"):
        await_end(TRAINING_JOBS, "flows-train-1", patience())


def test_the_deadline_ends_the_wait(sagemaker: FakeSageMaker) -> None:
    submit_once(TRAINING_JOBS, request_for())
    with pytest.raises(DeadlineError, match="InProgress"):
        await_end(TRAINING_JOBS, "flows-train-1", patience(deadline=10))


def test_what_vanishes_has_failed(sagemaker: FakeSageMaker) -> None:
    with pytest.raises(JobFailedError, match="deleted it"):
        await_end(TRAINING_JOBS, "flows-train-1", patience())


# --- stop -----------------------------------------------------------------------------------------------------------


def test_stopping_is_safe_to_repeat(sagemaker: FakeSageMaker) -> None:
    submit_once(TRAINING_JOBS, request_for())
    assert [stop(TRAINING_JOBS, "flows-train-1"), stop(TRAINING_JOBS, "flows-train-1")] == [True, False]

"""What a run started is stopped when it fails, however it fails; what it only adopted is not."""

import logging
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from tasks.aws import jobs
from tasks.aws.errors import DeadlineError, JobFailedError
from tasks.aws.jobs import TUNING_JOBS, Submission
from tasks.runs import stopped_on_failure

ENDS: list[BaseException] = [
    KeyboardInterrupt(),
    DeadlineError("tuning job", "t", "InProgress"),
    JobFailedError("tuning job", "t", "Failed", "its first trial printed nothing"),
    EndpointConnectionError(endpoint_url="http://127.0.0.1"),
    ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "Describe"),
    ValueError("a defect of ours"),
]


class FakeSageMaker:
    def __init__(self, trouble: Exception | None = None) -> None:
        self.stopped: list[str] = []
        self._trouble = trouble

    def stop_hyper_parameter_tuning_job(self, **request: Any) -> None:
        self.stopped += request.values()
        if self._trouble:
            raise self._trouble


def submission(*, ours: bool) -> Submission:
    return Submission("t", "arn:t", "created" if ours else "adopted", ours=ours)


@pytest.fixture
def sagemaker(monkeypatch: pytest.MonkeyPatch) -> FakeSageMaker:
    fake = FakeSageMaker()
    monkeypatch.setattr(jobs, "client", lambda _service: fake)
    return fake


@pytest.mark.parametrize("end", ENDS, ids=lambda end: type(end).__name__)
def test_whatever_ends_the_wait_ends_what_is_ours(sagemaker: FakeSageMaker, end: BaseException) -> None:
    with pytest.raises(type(end)), stopped_on_failure(TUNING_JOBS, submission(ours=True)):
        raise end
    assert sagemaker.stopped == ["t"]


def test_what_was_only_adopted_is_left_alone(sagemaker: FakeSageMaker) -> None:
    with pytest.raises(KeyboardInterrupt), stopped_on_failure(TUNING_JOBS, submission(ours=False)):
        raise KeyboardInterrupt
    assert sagemaker.stopped == []


def test_what_came_to_a_good_end_is_left_alone(sagemaker: FakeSageMaker) -> None:
    with stopped_on_failure(TUNING_JOBS, submission(ours=True)):
        pass
    assert sagemaker.stopped == []


def test_a_stop_that_fails_is_told_and_does_not_hide_what_had_happened(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake = FakeSageMaker(EndpointConnectionError(endpoint_url="http://127.0.0.1"))
    monkeypatch.setattr(jobs, "client", lambda _service: fake)
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(DeadlineError),
        stopped_on_failure(TUNING_JOBS, submission(ours=True)),
    ):
        raise DeadlineError(TUNING_JOBS.noun, "t", "InProgress")
    assert "The tuning job t could not be stopped, and may bill" in caplog.text

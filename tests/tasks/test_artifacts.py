"""Artifacts as the Prefect server has them: what it shows, where its links lead, and what is kept of earlier ones."""

import io
import re
from base64 import b64decode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx
import pytest
from PIL import Image
from prefect import flow
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks.contracts import (
    Deployment,
    EndpointAnswer,
    EndpointCompute,
    EndpointResult,
    Epoch,
    Health,
    LabelledImage,
    PredictedImage,
    Prediction,
    SampleAnswer,
    Section,
    TestEvaluation,
    TrainedModel,
    TrainingReport,
    TrainingResult,
)
from tasks.reports import report_endpoint, report_training

pytestmark = pytest.mark.slow

ACCOUNT = "eu-west-1:123456789012"
HOME = "https://eu-west-1.console.aws.amazon.com"
PNG = io.BytesIO()
Image.new("L", (8, 8)).save(PNG, "PNG")
EPOCH = Epoch(epoch=1, train_loss=1, train_accuracy=1, valid_loss=1, valid_accuracy=1, learning_rate=0.1, seconds=1)
JOB = TrainingResult(
    name="flows-train-1",
    arn=f"arn:aws:sagemaker:{ACCOUNT}:training-job/flows-train-1",
    how="created",
    model_s3_uri="s3://a-bucket/jobs/flows-train-1/output/model.tar.gz",
    output_s3_uri="s3://a-bucket/jobs/flows-train-1/output/output.tar.gz",
    instance_type="ml.m5.xlarge",
    instance_count=1,
    metrics={},
    phase_seconds={"Training": 3.0},
    billable_seconds=3,
    cost_usd=None,
)
ENDPOINT = EndpointResult(
    name="flows-live",
    arn=f"arn:aws:sagemaker:{ACCOUNT}:endpoint/flows-live",
    how="created",
    ours=True,
    config_name="a",
    model_name="a",
    compute=EndpointCompute(),
    created_at=datetime(2027, 1, 1, tzinfo=UTC),
    seconds_to_in_service=12,
    hourly_usd=0.115,
)
Published = Callable[[Callable[[], Section]], dict[str, Any]]


@pytest.fixture(scope="module")
def prefect_api(new_prefect_server: Any) -> Iterator[httpx.Client]:
    with new_prefect_server() as environment:
        address = environment["PREFECT_API_URL"]
        with temporary_settings({PREFECT_API_URL: address}), httpx.Client(base_url=address, timeout=60) as client:
            yield client


@pytest.fixture
def published(prefect_api: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> Published:
    """Report something in a flow, and return the latest artifact of its key, as the Prefect server has it."""
    monkeypatch.delenv("SAGEMAKER_FLOWS_CONSOLE_URL", raising=False)

    def publish(report: Callable[[], Section]) -> dict[str, Any]:
        @flow(name="reports")
        def reports() -> Section:
            return report()

        answer = prefect_api.get(f"/artifacts/{reports().key}/latest")
        artifact: dict[str, Any] = answer.raise_for_status().json()
        return artifact

    return publish


def trained(predicted: str) -> TrainedModel:
    """A training whose model took its only test picture, a cat, for this."""
    prediction = Prediction(file="cat/1.png", label="cat", predicted=predicted, probability=0.75)
    confusion = ((1, 0), (0, 0)) if predicted == "cat" else ((0, 1), (0, 0))
    report = TrainingReport(
        classes=("cat", "dog"),
        epochs=(EPOCH,),
        best_epoch=1,
        stopped_early=False,
        test=TestEvaluation(loss=1, accuracy=float(predicted == "cat"), confusion=confusion, predictions=(prediction,)),
        seconds={},
        images_per_second=1,
    )
    return TrainedModel(way="single instance", job=JOB, report=report)


def pictures_of(model: TrainedModel) -> tuple[PredictedImage, ...]:
    image = LabelledImage(name="1.png", label="cat", body=PNG.getvalue())
    return tuple(PredictedImage(image=image, prediction=one) for one in model.report.test.predictions)


def drawn(markdown: str) -> dict[str, tuple[int, int]]:
    """Return the size of every picture in the markdown, by its title."""
    found = re.findall(r"!\[([^]]*)\]\(data:image/png;base64,([^)]*)\)", markdown)
    return {title: Image.open(io.BytesIO(b64decode(body))).size for title, body in found}


def test_the_worst_confusions_are_there_as_pictures(published: Published) -> None:
    model = trained("dog")
    markdown = published(lambda: report_training(model, pictures_of(model)))["data"]
    assert "| 1 | cat | dog |" in markdown
    assert min(drawn(markdown)["worst confusions"]) > 50


def test_a_model_that_confused_nothing_shows_what_it_was_least_sure_of(published: Published) -> None:
    model = trained("cat")
    markdown = published(lambda: report_training(model, pictures_of(model)))["data"]
    assert "No test picture was taken for another." in markdown
    assert min(drawn(markdown)["right, but least sure"]) > 50


def test_a_training_without_pictures_to_show_is_reported_too(published: Published) -> None:
    model = trained("dog")
    markdown = published(lambda: report_training(model, ()))["data"]
    assert set(drawn(markdown)) == {"curves", "confusion matrix"}


def test_a_training_links_to_its_job_its_log_and_its_model(published: Published) -> None:
    model = trained("cat")
    markdown = published(lambda: report_training(model, ()))["data"]
    key = "jobs/flows-train-1/output/model.tar.gz"
    assert f"(<{HOME}/sagemaker/home?region=eu-west-1#/jobs/flows-train-1>)" in markdown
    assert "logStreamNameFilter$3Dflows-train-1" in markdown
    assert f"(<{HOME}/s3/object/a-bucket?region=eu-west-1&prefix={key}>)" in markdown


def test_a_training_on_an_instance_links_to_the_instance(published: Published) -> None:
    job = JOB.model_copy(update={"arn": f"arn:aws:ec2:{ACCOUNT}:instance/i-1", "instance_type": "m5.xlarge"})
    model = trained("cat").model_copy(update={"job": job})
    markdown = published(lambda: report_training(model, ()))["data"]
    assert f"on [i-1](<{HOME}/ec2/home?region=eu-west-1#InstanceDetails:instanceId=i-1>)" in markdown


def test_links_lead_to_the_console_that_the_environment_names(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    def report() -> Section:
        monkeypatch.setenv("SAGEMAKER_FLOWS_CONSOLE_URL", "http://127.0.0.1:1/_console")
        return report_endpoint(Deployment(endpoint=ENDPOINT, answers=()))

    markdown = published(report)["data"]
    assert "[flows-live](<http://127.0.0.1:1/_console/endpoints/flows-live>)" in markdown
    assert "amazon.com" not in markdown


def test_an_endpoint_shows_how_long_all_its_answers_took_and_how_many_were_right(published: Published) -> None:
    image = LabelledImage(name="1.png", label="cat", body=PNG.getvalue())
    answer = SampleAnswer(image=image, answer=EndpointAnswer(label="cat", probability=0.9, milliseconds=10))
    deployment = Deployment(
        endpoint=ENDPOINT,
        answers=(answer,),
        health=Health(pictures=32, accuracy=0.9375, p50_ms=10),
        milliseconds=(*(10.0 for _ in range(31)), 80.0),
    )
    markdown = published(lambda: report_endpoint(deployment))["data"]
    assert "**93.8% right** of 32 test pictures" in markdown
    assert "10 ms in the median, 80 ms at the 99th percentile" in markdown
    assert set(drawn(markdown)) == {"latency", "answers"}


def test_an_endpoint_that_nobody_asked_shows_no_latency(published: Published) -> None:
    assert drawn(published(lambda: report_endpoint(Deployment(endpoint=ENDPOINT, answers=())))["data"]) == {}


def test_artifacts_of_a_kind_share_a_key_which_has_a_history(published: Published, prefect_api: httpx.Client) -> None:
    def kept() -> int:
        only = {"artifacts": {"key": {"any_": ["endpoint"]}}}
        return int(prefect_api.post("/artifacts/count", json=only).raise_for_status().json())

    before = kept()
    for name in ("flows-a", "flows-b"):
        deployment = Deployment(endpoint=ENDPOINT.model_copy(update={"name": name}), answers=())
        latest = published(partial(report_endpoint, deployment))
    assert latest["description"] == "Endpoint flows-b"
    assert kept() == before + 2

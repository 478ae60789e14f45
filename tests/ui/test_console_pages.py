"""The local AWS's console in a browser that obeys its security policy."""

import base64
import io
import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urljoin

import boto3
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tasks.aws.settings import load_settings

pytestmark = pytest.mark.slow

ENDPOINT, JOB = (
    "ui-endpoint-with-a-name-as-long-as-those-of-our-own-4f2a9c",
    "ui-job-with-a-name-as-long-as-those-of-our-own",
)
COUNTS = "import time\nfor step in range(2000):\n    print(f'step {step}.', flush=True)\n    time.sleep(0.3)"
PAGES = (
    "/",
    "/_console/training-jobs",
    f"/_console/training-jobs/{JOB}",
    "/_console/tuning-jobs",
    "/_console/endpoints",
    f"/_console/endpoints/{ENDPOINT}",
    "/_console/instances",
    "/_console/functions",
    "/_console/buckets",
)
# What a person lets go over the box.
DROPPED = """encoded => {
    const bytes = Uint8Array.from(atob(encoded), letter => letter.charCodeAt(0));
    const dropped = new DataTransfer();
    dropped.items.add(new File([bytes], "seven.png", { type: "image/png" }));
    return dropped;
}"""
WIDER_THAN_THE_SCREEN = "() => document.documentElement.scrollWidth > document.documentElement.clientWidth"
PAINTED = "picture => picture.complete && picture.naturalWidth > 0"
DARK = 128
BRIGHTNESS = "() => Math.max(...getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number))"


@pytest.fixture
def console(page: Page, local_aws: Any, complaints: list[str]) -> Page:
    """The console, as whoever opens its address sees it."""
    page.goto(local_aws.console_url)
    return page


@pytest.fixture(scope="module")
def endpoint(stage_package: Callable[..., str]) -> Iterator[str]:
    sagemaker, settings = boto3.client("sagemaker"), load_settings()
    container = {"Image": "ray", "ModelDataUrl": stage_package("ui", label="seven")}
    sagemaker.create_model(ModelName="ui", PrimaryContainer=container, ExecutionRoleArn=settings.endpoint_role_arn)
    variant = {"VariantName": "v", "ModelName": "ui", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName="ui", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=ENDPOINT, EndpointConfigName="ui")
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=ENDPOINT, WaiterConfig={"Delay": 1})
    yield ENDPOINT
    sagemaker.delete_endpoint(EndpointName=ENDPOINT)


@pytest.fixture(scope="module")
def job(local_aws: Any, tar_gz: Callable[[dict[str, bytes]], bytes]) -> Iterator[str]:
    """A training job that goes on counting in its log."""
    sagemaker, settings = boto3.client("sagemaker"), load_settings()
    program = {"Bucket": settings.bucket, "Key": "code/ui.tar.gz"}
    boto3.client("s3").put_object(**program, Body=tar_gz({"train.py": COUNTS.encode()}))
    sagemaker.create_training_job(
        TrainingJobName=JOB,
        AlgorithmSpecification={"TrainingImage": "pytorch", "TrainingInputMode": "File"},
        RoleArn=settings.training_role_arn,
        HyperParameters={
            "sagemaker_program": json.dumps("train.py"),
            "sagemaker_submit_directory": json.dumps("s3://{Bucket}/{Key}".format(**program)),
        },
        OutputDataConfig={"S3OutputPath": f"s3://{settings.bucket}/jobs"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 600},
    )
    yield JOB
    sagemaker.stop_training_job(TrainingJobName=JOB)


def picture() -> str:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), 128).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_a_picture_dropped_on_an_endpoint_is_answered(console: Page, endpoint: str, complaints: list[str]) -> None:
    console.get_by_role("link", name="Endpoints").first.click()
    console.get_by_role("link", name=endpoint).click()
    dropped = console.evaluate_handle(DROPPED, picture())
    console.get_by_text("Drop a picture here").dispatch_event("drop", {"dataTransfer": dropped})
    expect(console.locator(".answer")).to_contain_text("seven 90 %")
    assert console.locator("img.preview").evaluate(PAINTED)
    assert complaints == []


def test_the_log_of_a_job_grows_while_somebody_looks(console: Page, job: str, complaints: list[str]) -> None:
    console.get_by_role("link", name="Training").first.click()
    console.get_by_role("link", name=job).click()
    log = console.locator("pre.log")
    expect(log).to_contain_text("step 0.")
    last_seen = int(re.findall(r"step (\d+)\.", log.inner_text())[-1])
    expect(log).to_contain_text(f"step {last_seen + 5}.")
    assert complaints == []


def test_the_overview_shows_what_is_made_while_somebody_looks(console: Page, complaints: list[str]) -> None:
    expect(console.get_by_role("heading", name="Overview")).to_be_visible()
    s3, bucket = boto3.client("s3"), "ui-made-meanwhile"
    s3.create_bucket(Bucket=bucket)
    expect(console.get_by_role("link", name=bucket)).to_be_visible()
    s3.delete_bucket(Bucket=bucket)  # other tests look at what there is
    assert complaints == []


@pytest.mark.usefixtures("job", "endpoint")
@pytest.mark.parametrize("width", [1200, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_every_screen(console: Page, complaints: list[str], scheme: Any, width: int) -> None:
    """In the dark as in the light, on a telephone as on a desk, nothing is beyond the right edge."""
    console.emulate_media(color_scheme=scheme)
    console.set_viewport_size({"width": width, "height": 800})
    too_wide = []
    for path in PAGES:
        console.goto(urljoin(console.url, path))
        assert (console.evaluate(BRIGHTNESS) < DARK) == (scheme == "dark")
        if console.evaluate(WIDER_THAN_THE_SCREEN):
            too_wide.append(path)
    assert too_wide == []
    assert complaints == []

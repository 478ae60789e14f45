"""Links lead to the page of the very resource, in whichever console the environment names."""

from collections.abc import Iterator
from typing import get_args

import boto3
import httpx
import pytest

from deployments.local_aws.server import LocalAws
from tasks.aws.console_links import Console, Page, page_of, region_of
from tasks.aws.settings import console_address

AWS = Console("eu-west-1")
HOME = "https://eu-west-1.console.aws.amazon.com"
LOGS = f"{HOME}/cloudwatch/home?region=eu-west-1#logsV2:log-groups/log-group"
# A person who clicks on a link in a page of another server.
FOLLOWED = {
    "Accept": "text/html",
    "Referer": "http://127.0.0.1:4200/",
    "Sec-Fetch-Site": "same-site",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-User": "?1",
}


@pytest.mark.parametrize(
    ("page", "name", "address"),
    [
        ("training job", "flows-train-1", f"{HOME}/sagemaker/home?region=eu-west-1#/jobs/flows-train-1"),
        ("tuning job", "flows-tune-1", f"{HOME}/sagemaker/home?region=eu-west-1#/hyper-tuning-jobs/flows-tune-1"),
        ("endpoint", "flows-live", f"{HOME}/sagemaker/home?region=eu-west-1#/endpoints/flows-live"),
        ("instance", "i-0a1b", f"{HOME}/ec2/home?region=eu-west-1#InstanceDetails:instanceId=i-0a1b"),
        ("function", "flows-front", f"{HOME}/lambda/home?region=eu-west-1#/functions/flows-front"),
        ("endpoint log", "flows-live", f"{LOGS}/$252Faws$252Fsagemaker$252FEndpoints$252Fflows-live"),
        ("function log", "flows-front", f"{LOGS}/$252Faws$252Flambda$252Fflows-front"),
        (
            "training log",
            "flows-train-1",
            f"{LOGS}/$252Faws$252Fsagemaker$252FTrainingJobs$3FlogStreamNameFilter$3Dflows-train-1$252F",
        ),
    ],
)
def test_every_resource_has_its_page_in_the_console_of_its_region(page: Page, name: str, address: str) -> None:
    assert AWS.page(page, name) == address


def test_an_object_has_its_page_whatever_its_key_is() -> None:
    address = AWS.object("s3://a-bucket/datasets/pets/great dane#1/ü&c=d?.png")
    key = "datasets/pets/great%20dane%231/%C3%BC%26c%3Dd%3F.png"
    assert address == f"{HOME}/s3/object/a-bucket?region=eu-west-1&prefix={key}"


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("cn-north-1", "cn-north-1.console.amazonaws.cn"),
        ("us-gov-west-1", "us-gov-west-1.console.amazonaws-us-gov.com"),
        ("us-east-1", "us-east-1.console.aws.amazon.com"),
    ],
)
def test_each_partition_has_a_console_of_its_own(region: str, host: str) -> None:
    assert Console(region).page("endpoint", "a").startswith(f"https://{host}/sagemaker/home?region={region}#")


def test_an_arn_says_which_page_of_which_region() -> None:
    assert page_of("arn:aws:sagemaker:eu-west-1:123456789012:training-job/a") == ("training job", "a")
    assert page_of("arn:aws:sagemaker:eu-west-1:123456789012:hyper-parameter-tuning-job/a") == ("tuning job", "a")
    assert page_of("arn:aws:ec2:eu-west-1:123456789012:instance/i-1") == ("instance", "i-1")
    assert region_of("arn:aws:lambda:eu-west-1:123456789012:function:a:live") == "eu-west-1"


def test_without_an_address_in_the_environment_it_is_the_console_of_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAGEMAKER_FLOWS_CONSOLE_URL", raising=False)
    assert console_address() == ""


@pytest.fixture
def console(local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> Console:
    """The console that the environment of the worker names."""
    monkeypatch.setenv("SAGEMAKER_FLOWS_CONSOLE_URL", local_aws.worker_environment["SAGEMAKER_FLOWS_CONSOLE_URL"])
    return Console("us-east-1", console_address())


@pytest.fixture
def browser(local_aws: LocalAws) -> Iterator[httpx.Client]:
    """A browser in which the console has been opened."""
    with httpx.Client(headers=FOLLOWED, follow_redirects=True, timeout=60) as client:
        assert client.get(local_aws.console_url).status_code == 200
        yield client


@pytest.mark.parametrize("page", get_args(Page))
def test_the_console_that_the_environment_names_knows_each_page(
    console: Console, browser: httpx.Client, page: Page
) -> None:
    """Of a path that it knows it says what it could not find there; of another one that there is no such page."""
    no_such_page = "<h1>Not Found</h1>"
    assert no_such_page in browser.get(f"{console_address()}/no-such-page").text
    answer = browser.get(console.page(page, "i-0123456789abcdef0"))
    assert (answer.status_code, no_such_page in answer.text) == (404, False)


def test_the_page_of_an_object_shows_it(console: Console, browser: httpx.Client) -> None:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="console-links")
    s3.put_object(Bucket="console-links", Key="a b/ü&c.txt", Body=b"what is in it")
    answer = browser.get(console.object("s3://console-links/a b/ü&c.txt"))
    assert (answer.status_code, "what is in it" in answer.text) == (200, True)


def test_a_browser_that_has_not_opened_it_is_told_how(console: Console) -> None:
    answer = httpx.get(console.page("endpoint", "flows-live"), headers=FOLLOWED, timeout=60)
    assert (answer.status_code, "address with the token is printed" in answer.text) == (403, True)


def test_links_carry_no_secret_of_the_console(local_aws: LocalAws, console: Console) -> None:
    assert local_aws.console_key.token not in console.page("endpoint", "a") + console.object("s3://a-bucket/b")

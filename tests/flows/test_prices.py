"""`refresh_prices` as a schedule runs it: what AWS lists is kept where the next flow finds it, and nonsense is not."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import httpx
import pytest

from tasks.aws.prices import PRICES_FILE
from tasks.aws.settings import load_settings

pytestmark = pytest.mark.slow

KEY = "prices/us-east-1.json"
# Too small a budget for one trial is told with the price of one, before anything is started.
POOR = ("s3://a-bucket/dataset.json", "--tuning.max-usd", "0.001", "--compute.instance-type")


@pytest.fixture
def bucket(local_aws: Any) -> Iterator[str]:
    """The foundation's bucket without prices, before and after."""
    name = load_settings().bucket
    boto3.client("s3").delete_object(Bucket=name, Key=KEY)
    yield name
    boto3.client("s3").delete_object(Bucket=name, Key=KEY)


def packaged() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(PRICES_FILE.read_text(encoding="utf-8"))
    return dict(table["us-east-1"])


def keep(bucket: str, prices: dict[str, Any]) -> None:
    boto3.client("s3").put_object(Bucket=bucket, Key=KEY, Body=json.dumps(prices).encode())


def kept(bucket: str) -> dict[str, Any]:
    body = boto3.client("s3").get_object(Bucket=bucket, Key=KEY)["Body"].read()
    return dict(json.loads(body))


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def test_the_next_flow_reckons_with_what_was_refreshed(run_flow: Any, bucket: str, local_aws: Any) -> None:
    before = run_flow("tune_hyperparameters", *POOR, "ml.m6i.xlarge")
    assert "ml.m6i.xlarge has no known price in us-east-1" in last_line(before.stderr)
    refreshed = run_flow("refresh_prices")
    assert refreshed.returncode == 0, refreshed.stderr[-3000:]
    assert last_line(refreshed.stdout) == f"s3://{bucket}/{KEY}"
    after = run_flow("tune_hyperparameters", *POOR, "ml.m6i.xlarge")
    assert "may take 3600 s and $0.23" in last_line(after.stderr)
    assert kept(bucket)["training"]["ml.m6i.xlarge"] == 0.23
    used = {use for use in local_aws.record.uses if use.action == "pricing:GetProducts"}
    assert [(use.principal, use.allowed) for use in used] == [("user/flows-worker", True)]


def test_a_price_that_changed_is_shown_and_kept(run_flow: Any, bucket: str, prefect_api: httpx.Client) -> None:
    prices = packaged()
    prices["training"] |= {"ml.m5.xlarge": 0.2, "ml.old.xlarge": 1.0}
    keep(bucket, prices)
    refreshed = run_flow("refresh_prices")
    assert refreshed.returncode == 0, refreshed.stderr[-3000:]
    assert "training ml.m5.xlarge: $0.2 before, $0.23 now (+15.0%)" in refreshed.stdout
    assert "1 changed" in refreshed.stdout
    assert "1 gone" in refreshed.stdout
    assert "ml.old.xlarge" not in kept(bucket)["training"]
    found = prefect_api.post("/artifacts/filter", json={"limit": 200}).raise_for_status().json()
    tables = [artifact["data"] for artifact in found if artifact["key"] == "prices"]
    assert any("| training | ml.m5.xlarge | $0.2 | $0.23 | +15.0% |" in table for table in tables)
    assert any("Not listed any more: training ml.old.xlarge" in table for table in tables)


def test_a_price_that_changed_too_much_is_refused_unless_it_is_accepted(run_flow: Any, bucket: str) -> None:
    prices = packaged()
    prices["hosting"]["ml.m5.xlarge"] = 0.05
    keep(bucket, prices)
    refused = run_flow("refresh_prices", "--most-times", "3")
    assert refused.returncode == 1
    assert last_line(refused.stderr).startswith(
        "Prices changed by more than 3 times: hosting ml.m5.xlarge from $0.05 to $0.23; those in use stay."
    )
    assert kept(bucket) == prices
    accepted = run_flow("refresh_prices", "--accept-all")
    assert accepted.returncode == 0, accepted.stderr[-3000:]
    assert kept(bucket)["hosting"]["ml.m5.xlarge"] == 0.23


def test_prices_that_cannot_be_read_are_told_in_the_runs_log_and_those_of_the_package_used(
    run_flow: Any, bucket: str, prefect_api: httpx.Client
) -> None:
    boto3.client("s3").put_object(Bucket=bucket, Key=KEY, Body=b'{"as_of": "soon"}')
    # As deployments/prefect.yaml has it.
    logged = {"PREFECT_LOGGING_EXTRA_LOGGERS": "tasks.aws"}
    result = run_flow("tune_hyperparameters", *POOR, "ml.m5.xlarge", environment=logged)
    assert "may take 3600 s and $0.23" in last_line(result.stderr)
    logs = prefect_api.post("/logs/filter", json={"sort": "TIMESTAMP_DESC"}).raise_for_status().json()
    told = [log["message"] for log in logs if "The prices of the package" in log["message"]]
    assert len(told) == 1
    assert f"s3://{bucket}/{KEY}: is no price list of this version" in told[0]


def test_prices_older_than_the_packages_are_not_used(run_flow: Any, bucket: str) -> None:
    prices = packaged()
    prices["training"]["ml.m5.xlarge"] = 0.2
    keep(bucket, prices | {"as_of": "2020-01-01"})
    result = run_flow("tune_hyperparameters", *POOR, "ml.m5.xlarge")
    assert "may take 3600 s and $0.23" in last_line(result.stderr)

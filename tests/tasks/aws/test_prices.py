"""Prices come from a dated table; its refresh reads what the AWS Price List API answers."""

import json
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from tasks.aws import prices
from tasks.aws.errors import FlowsError
from tasks.contracts import PriceList

NOTHING = {"as_of": "2026-01-01", "source": "a test", "training": {}, "hosting": {}, "ec2": {}, "lambda": {}}


def product(use: str, instance: str, usd: str, unit: str = "Hrs") -> str:
    terms = {"OnDemand": {"t": {"priceDimensions": {"d": {"unit": unit, "pricePerUnit": {"USD": usd}}}}}}
    attributes = {"platoinstancetype": use, "instanceName": instance, "regionCode": "eu-west-1"}
    return json.dumps({"product": {"attributes": attributes}, "terms": terms})


def charge(group: str, *tiers: str) -> str:
    dimensions = {usd: {"unit": "Lambda-GB-Second", "pricePerUnit": {"USD": usd}} for usd in tiers}
    terms = {"OnDemand": {"t": {"priceDimensions": dimensions}}}
    return json.dumps({"product": {"attributes": {"group": group, "regionCode": "eu-west-1"}}, "terms": terms})


@pytest.fixture
def price_list(monkeypatch: pytest.MonkeyPatch) -> Stubber:
    client = boto3.client("pricing", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
    stubber = Stubber(client)
    monkeypatch.setattr(prices, "client", lambda _service, _region: client)
    stubber.activate()
    return stubber


@pytest.fixture
def table(tmp_path: Path) -> Path:
    file = tmp_path / "prices.json"
    file.write_text(prices.PRICES_FILE.read_text(encoding="utf-8"), encoding="utf-8")
    return file


def answer(*products: str) -> dict[str, Any]:
    return {"PriceList": list(products)}


def test_cost_is_seconds_times_instances_times_price() -> None:
    hourly = prices.hourly_usd("training", "ml.m5.xlarge", "us-east-1")
    assert hourly is not None
    assert prices.cost_usd("training", "ml.m5.xlarge", "us-east-1", 4, 1800) == pytest.approx(hourly * 2)


def test_an_unknown_price_is_unknown_and_not_nothing() -> None:
    assert prices.cost_usd("training", "ml.m5.xlarge", "mars-north-1", 1, 10) is None
    assert prices.prices_as_of("mars-north-1") is None


def test_a_function_has_a_price_where_all_parts_of_it_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert prices.lambda_prices("us-east-1") == prices.LambdaPrices(2e-7, 1.66667e-5, 4.1667e-6, 9.7222e-6)
    assert prices.lambda_prices("mars-north-1") is None
    listed = PriceList.model_validate({**NOTHING, "lambda": {"request": 2e-7}})
    monkeypatch.setattr(prices, "_kept", {"mars-north-1": listed})
    assert prices.lambda_prices("mars-north-1") is None
    assert prices.prices_as_of("mars-north-1") == "2026-01-01"


def test_the_newer_of_package_and_kept_is_reckoned_with(monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = prices.hourly_usd("training", "ml.m5.xlarge", "us-east-1")
    for as_of, expected in (("2020-01-01", packaged), ("2999-01-01", 1.5)):
        listed = PriceList.model_validate({**NOTHING, "as_of": as_of, "training": {"ml.m5.xlarge": 1.5}})
        monkeypatch.setattr(prices, "_kept", {"us-east-1": listed})
        assert prices.hourly_usd("training", "ml.m5.xlarge", "us-east-1") == expected


def test_prices_are_numbers_greater_than_nothing() -> None:
    for price in (0, -1, "free", float("nan")):
        with pytest.raises(ValueError, match="training"):
            PriceList.model_validate({**NOTHING, "training": {"ml.m5.xlarge": price}})


def test_a_refresh_writes_the_region_and_leaves_the_others(price_list: Stubber, table: Path) -> None:
    before = json.loads(table.read_text(encoding="utf-8"))
    price_list.add_response(
        "get_products",
        answer(
            product("Training", "ml.m5.large", "0.128"),
            product("Hosting", "ml.m5.large", "0.129"),
            product("Notebook", "ml.m5.large", "9"),
            product("Training", "ml.m5.xlarge", "1", unit="GB-Mo"),
        ),
    )
    machine = json.loads(product("", "", "0.1")) | {"product": {"attributes": {"instanceType": "m5.large"}}}
    price_list.add_response("get_products", answer(json.dumps(machine)))
    price_list.add_response(
        "get_products",
        answer(
            charge("AWS-Lambda-Requests", "0.0000002"),
            charge("AWS-Lambda-Duration", "0.00001667", "0.000015"),
            charge("AWS-Lambda-Duration-ARM", "0.0000133334"),
        ),
    )
    assert prices.refresh("eu-west-1", table) == 5
    after = json.loads(table.read_text(encoding="utf-8"))
    assert after["eu-west-1"]["training"] == {"ml.m5.large": 0.128}
    assert after["eu-west-1"]["hosting"] == {"ml.m5.large": 0.129}
    assert after["eu-west-1"]["ec2"] == {"m5.large": 0.1}
    assert after["eu-west-1"]["lambda"] == {"request": 2e-7, "gb_second": 1.667e-5}
    assert after["us-east-1"] == before["us-east-1"]


def test_a_refresh_without_prices_loses_nothing(price_list: Stubber, table: Path) -> None:
    before = table.read_bytes()
    for _ in range(3):
        price_list.add_response("get_products", answer())
    with pytest.raises(FlowsError, match="no price for mars-north-1"):
        prices.refresh("mars-north-1", table)
    assert table.read_bytes() == before

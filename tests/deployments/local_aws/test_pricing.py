"""The Price List API of the local AWS, as boto3 and the `aws` command line ask it."""

import json
import subprocess
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

REGION = "us-east-1"


@pytest.fixture(scope="module")
def pricing(local_aws: object) -> Any:
    return boto3.client("pricing", region_name=REGION)


def matching(**attributes: str) -> list[dict[str, str]]:
    return [{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in attributes.items()]


def products(pricing: Any, service: str, page: int = 100, **attributes: str) -> list[dict[str, Any]]:
    pages = pricing.get_paginator("get_products").paginate(
        ServiceCode=service, Filters=matching(**attributes), PaginationConfig={"PageSize": page}
    )
    return [json.loads(text) for one in pages for text in one["PriceList"]]


def test_a_product_has_the_shape_that_aws_gives_it(pricing: Any) -> None:
    (found,) = products(pricing, "AmazonEC2", instanceType="m5.xlarge", operatingSystem="Linux", tenancy="Shared")
    assert set(found) == {"product", "serviceCode", "terms", "version", "publicationDate"}
    assert (found["serviceCode"], found["product"]["productFamily"]) == ("AmazonEC2", "Compute Instance")
    assert found["product"]["attributes"]["regionCode"] == REGION
    ((term_key, term),) = found["terms"]["OnDemand"].items()
    assert term_key == f"{found['product']['sku']}.{term['offerTermCode']}"
    ((rate, dimension),) = term["priceDimensions"].items()
    assert rate == dimension["rateCode"]
    assert rate.startswith(term_key)
    assert (dimension["unit"], dimension["beginRange"], dimension["endRange"]) == ("Hrs", "0", "Inf")
    assert dimension["pricePerUnit"] == {"USD": "0.1920000000"}


def test_every_filter_must_match(pricing: Any) -> None:
    every = products(pricing, "AmazonSageMaker")
    training = products(pricing, "AmazonSageMaker", component="Training")
    one = products(pricing, "AmazonSageMaker", component="Training", instanceName="ml.m5.xlarge")
    assert len(every) > len(training) > len(one) == 1
    assert {found["product"]["attributes"]["component"] for found in training} == {"Training"}
    assert products(pricing, "AmazonSageMaker", regionCode="mars-north-1") == []
    assert products(pricing, "AmazonSageMaker", noSuchAttribute="x") == []


def test_pages_are_the_whole(pricing: Any) -> None:
    first = pricing.get_products(ServiceCode="AmazonSageMaker", MaxResults=3)
    assert (len(first["PriceList"]), first["FormatVersion"]) == (3, "aws_v1")
    assert first["NextToken"]
    assert products(pricing, "AmazonSageMaker", page=3) == products(pricing, "AmazonSageMaker")


def test_what_is_cheaper_in_bulk_has_a_price_for_each_tier(pricing: Any) -> None:
    (found,) = products(pricing, "AWSLambda", group="AWS-Lambda-Duration")
    (term,) = found["terms"]["OnDemand"].values()
    tiers = sorted(
        (float(one["beginRange"]), one["endRange"], one["pricePerUnit"]["USD"])
        for one in term["priceDimensions"].values()
    )
    assert tiers == [
        (0.0, "6000000000", "0.0000166667"),
        (6e9, "15000000000", "0.0000150000"),
        (15e9, "Inf", "0.0000133334"),
    ]


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        ({"ServiceCode": "AmazonNothing"}, "NotFoundException", "AmazonNothing"),
        ({"ServiceCode": "Amazon EC2"}, "InvalidParameterException", "a-z, A-Z, 0-9"),
        ({"ServiceCode": "AmazonEC2", "NextToken": "another"}, "InvalidNextTokenException", "token"),
        ({"ServiceCode": "AmazonEC2", "FormatVersion": "aws_v2"}, "InvalidParameterException", "only aws_v1"),
        (
            {"ServiceCode": "AmazonEC2", "Filters": [{"Type": "CONTAINS", "Field": "instanceType", "Value": "m5"}]},
            "InvalidParameterException",
            "does not implement Filters.Type=CONTAINS",
        ),
    ],
)
def test_what_there_is_not_is_refused(pricing: Any, request_: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(ClientError, match=words) as raised:
        pricing.get_products(**request_)
    assert raised.value.response["Error"]["Code"] == code


def test_a_request_is_held_against_the_services_model(local_aws: Any) -> None:
    """By a client that checks nothing itself."""
    from botocore.config import Config

    careless = boto3.client("pricing", region_name=REGION, config=Config(parameter_validation=False))
    for request, words in (({"ServiceCode": "AmazonEC2", "MaxResults": 101}, "100"), ({}, "serviceCode")):
        with pytest.raises(ClientError, match=words) as raised:
            careless.get_products(**request)
        assert raised.value.response["Error"]["Code"] == "ValidationException"
    with pytest.raises(ClientError, match="does not implement pricing:DescribeServices"):
        careless.describe_services()


@pytest.mark.usefixtures("local_aws")
def test_the_aws_command_line_asks_for_prices() -> None:
    command = ["aws", "pricing", "get-products", "--region", REGION, "--service-code", "AmazonEC2"]
    command += ["--filters", "Type=TERM_MATCH,Field=instanceType,Value=m5.large"]
    finished = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    listed = [json.loads(text) for text in json.loads(finished.stdout)["PriceList"]]
    assert {one["product"]["attributes"]["operatingSystem"] for one in listed} == {"Linux", "Windows"}

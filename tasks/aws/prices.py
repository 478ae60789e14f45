"""What machines and functions cost: a dated table in the package, or the newer one that refresh_prices keeps in S3.

python -m tasks.aws.prices --region us-east-1     for maintainers: rewrites the region's part of the package's table
"""

import argparse
import json
import logging
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import ValidationError

from tasks.aws.clients import client
from tasks.aws.errors import FlowsError, is_code, sentence_for
from tasks.contracts import PriceList

Use = Literal["training", "hosting", "ec2"]

PRICES_FILE = Path(__file__).with_name("prices.json")
_SECONDS_PER_HOUR = 3600
_LOGGER = logging.getLogger(__name__)
# The Price List API answers for all regions, but is served in three of them only.
_PRICE_LIST_REGION = "us-east-1"
_USES: dict[str, Use] = {"Training": "training", "Hosting": "hosting"}
# One EC2 type has dozens of prices: by system, licence, tenancy and reservation.
_PLAIN_LINUX = {
    "productFamily": "Compute Instance",
    "operatingSystem": "Linux",
    "preInstalledSw": "NA",
    "tenancy": "Shared",
    "capacitystatus": "Used",
}
_HOURS = ("Hrs", "Hours")
# Of x86 (those of ARM end in -ARM). A group has one unit, whose spelling differs from product to product.
_LAMBDA_GROUPS = {
    "AWS-Lambda-Requests": "request",
    "AWS-Lambda-Duration": "gb_second",
    "AWS-Lambda-Provisioned-Concurrency": "warm_gb_second",
    "AWS-Lambda-Duration-Provisioned": "answering_warm_gb_second",
}


@dataclass(frozen=True)
class LambdaPrices:
    """What a function costs on x86, in dollars: a request, and a second of a GB of its memory."""

    request: float
    gb_second: float  # answering
    warm_gb_second: float  # kept warm, answering or not
    answering_warm_gb_second: float  # answering in what is kept warm, on top of that


@cache
def _packaged() -> dict[str, PriceList]:
    table = json.loads(PRICES_FILE.read_text(encoding="utf-8"))
    return {region: PriceList.model_validate(prices) for region, prices in table.items()}


# By region: what was found in S3, once for the whole process, so that one run reckons with one list.
_kept: dict[str, PriceList] = {}
_looked_for: set[str] = set()


def prices_in_use(region: str) -> PriceList | None:
    """Return the newer of the package's prices of a region and those taken from S3; None when there are none."""
    packaged, kept = _packaged().get(region), _kept.get(region)
    if packaged is None or kept is None:
        return kept or packaged
    return kept if kept.as_of >= packaged.as_of else packaged


def prices_as_of(region: str) -> str | None:
    """Return the date of a region's prices; None when there are none."""
    prices = prices_in_use(region)
    return None if prices is None else prices.as_of.isoformat()


def hourly_usd(use: Use, instance_type: str, region: str, instance_count: int = 1) -> float | None:
    """Return what so many instances cost an hour, in dollars; None when the price is not known."""
    prices = prices_in_use(region)
    price = None if prices is None else prices.by_kind[use].get(instance_type)
    return None if price is None else price * instance_count


def cost_usd(use: Use, instance_type: str, region: str, instance_count: int, seconds: float) -> float | None:
    """Return what so many instances cost for so many billable seconds each; None when the price is not known.

    Only machines are counted: not storage, requests or traffic.
    """
    hourly = hourly_usd(use, instance_type, region, instance_count)
    return None if hourly is None else hourly * seconds / _SECONDS_PER_HOUR


def lambda_prices(region: str) -> LambdaPrices | None:
    """Return what a function costs; None when a part of it is not known."""
    prices = prices_in_use(region)
    known = {} if prices is None else prices.functions
    names = [field.name for field in fields(LambdaPrices)]
    return LambdaPrices(**known) if sorted(known) == sorted(names) else None


def kept_key(region: str) -> str:
    """Return where in the foundation's bucket the prices of a region are kept."""
    return f"prices/{region}.json"


def take_kept_prices(bucket: str, region: str) -> None:
    """Use the prices that are kept in S3 from here on, once for each process; without them, those of the package."""
    uri = f"s3://{bucket}/{kept_key(region)}"
    if uri in _looked_for:
        return
    _looked_for.add(uri)
    try:
        body = client("s3").get_object(Bucket=bucket, Key=kept_key(region))["Body"].read()
        _kept[region] = PriceList.model_validate_json(body)
    except (ClientError, BotoCoreError, ValidationError) as error:
        if isinstance(error, ClientError) and is_code(error, "NoSuchKey"):
            return  # nobody has refreshed them yet
        why = "is no price list of this version" if isinstance(error, ValidationError) else sentence_for(error)
        _LOGGER.warning("The prices of the package, as of %s, are used: %s: %s", prices_as_of(region), uri, why)


def keep_prices(bucket: str, region: str, prices: PriceList) -> str:
    """Keep the prices of a region in S3, use them from here on, and return their URI."""
    body = prices.model_dump_json(by_alias=True, indent=1).encode()
    client("s3").put_object(Bucket=bucket, Key=kept_key(region), Body=body, ContentType="application/json")
    _kept[region] = prices
    return f"s3://{bucket}/{kept_key(region)}"


def fetch_prices(region: str) -> PriceList:
    """Return the on-demand prices in a region as AWS lists them now: of machines by use, dollars an hour; of functions.

    https://docs.aws.amazon.com/aws-cost-management/latest/APIReference/API_pricing_GetProducts.html
    """
    prices: dict[str, dict[str, float]] = {"training": {}, "hosting": {}, "ec2": {}, "lambda": {}}
    for product in _products("AmazonSageMaker", {"regionCode": region, "productFamily": "ML Instance"}):
        attributes = product["product"]["attributes"]
        # The list carries the use under either name, depending on the product's age.
        use = _USES.get(attributes.get("platoinstancetype") or attributes.get("component", ""))
        usd = _on_demand_usd(product)
        if use and usd and attributes.get("instanceName"):
            prices[use][attributes["instanceName"]] = usd
    for product in _products("AmazonEC2", {"regionCode": region, **_PLAIN_LINUX}):
        usd = _on_demand_usd(product)
        if usd:
            prices["ec2"][product["product"]["attributes"]["instanceType"]] = usd
    for product in _products("AWSLambda", {"regionCode": region, "productFamily": "Serverless"}):
        name = _LAMBDA_GROUPS.get(product["product"]["attributes"].get("group", ""))
        usd = _on_demand_usd(product, units=None)
        if name and usd:
            prices["lambda"][name] = usd
    today = datetime.now(tz=UTC).date()
    return PriceList.model_validate({"as_of": today, "source": "AWS Price List API"} | prices)


def _products(service: str, attributes: dict[str, str]) -> Iterator[dict[str, Any]]:
    filters = [{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in attributes.items()]
    pages = client("pricing", _PRICE_LIST_REGION).get_paginator("get_products")
    for page in pages.paginate(ServiceCode=service, Filters=filters):
        for text in page["PriceList"]:
            yield json.loads(text)


def _on_demand_usd(product: dict[str, Any], units: Collection[str] | None = _HOURS) -> float | None:
    """Return the highest price of a product, which is that of its first tier; None when it has none in these units."""
    terms = product.get("terms", {}).get("OnDemand", {}).values()
    dimensions = [dimension for term in terms for dimension in term["priceDimensions"].values()]
    priced = [dimension for dimension in dimensions if units is None or dimension["unit"] in units]
    return max((float(dimension["pricePerUnit"]["USD"]) for dimension in priced), default=None)


def refresh(region: str, file: Path = PRICES_FILE) -> int:
    """Rewrite a region's part of the table with today's prices, and return how many there are.

    Raises:
        FlowsError: AWS listed no price; the table is left as it was.
    """
    prices = fetch_prices(region)
    if not prices.count:
        msg = f"AWS lists no price for {region}: check the region's name; {file.name} is left as it was"
        raise FlowsError(msg)
    table: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    table[region] = prices.model_dump(mode="json", by_alias=True)
    file.write_text(json.dumps(table, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    _packaged.cache_clear()
    return prices.count


def main(arguments: list[str] | None = None) -> int:
    """Refresh the table from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tasks.aws.prices", description="Refresh prices.json from AWS.")
    parser.add_argument("--region", default="us-east-1")
    region = parser.parse_args(arguments).region
    try:
        count = refresh(region)
    except (FlowsError, ClientError, BotoCoreError) as error:
        sys.stderr.write(f"{sentence_for(error)}\n")
        return 1
    sys.stdout.write(f"{count} prices of {region} written to {PRICES_FILE}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

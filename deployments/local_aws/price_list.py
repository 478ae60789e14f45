"""The Price List API: what AWS charges, as a list of its own says; the documents have the shape that AWS gives them.

https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/using-price-list-query-api.html
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from deployments.local_aws.protocol import AwsError, Operation
from deployments.local_aws.refusals import Supported

_FILE = Path(__file__).with_name("price_list.json")
_PAGE = 100
_FORMAT = "aws_v1"
# AWS's own codes: of on-demand terms, and of their hourly or per-use rate.
_ON_DEMAND, _RATE = "JRTCKXETXF", "6YS6EN2CT7"
_SERVICE_CODE = re.compile(r"[a-zA-Z0-9]+")
_SUPPORTED = Supported(
    honoured=("ServiceCode", "Filters.Field", "Filters.Value", "NextToken", "MaxResults"),
    only={"Filters.Type": ("TERM_MATCH",), "FormatVersion": (_FORMAT,)},
)


def get_products(request: dict[str, Any]) -> dict[str, Any]:
    """Return a page of the products that all filters match, each as a JSON document.

    https://docs.aws.amazon.com/aws-cost-management/latest/APIReference/API_pricing_GetProducts.html

    Raises:
        AwsError: NotFoundException: no service has that code; InvalidParameterException; InvalidNextTokenException.
    """
    _SUPPORTED.check("GetProducts", request, "InvalidParameterException")
    service = request["ServiceCode"]
    if not _SERVICE_CODE.fullmatch(service):
        code = "InvalidParameterException"
        raise AwsError(code, "Input Parameters are invalid. ServiceCode can only contain a-z, A-Z, 0-9")
    listed = [product for product in _products() if product["serviceCode"] == service]
    if not listed:
        code, message = "NotFoundException", f"The service code {service} was not found"
        raise AwsError(code, message)
    wanted = [(one["Field"], one["Value"]) for one in request.get("Filters", [])]
    found = [product for product in listed if all(_matches(product, *one) for one in wanted)]
    start = _offset(request.get("NextToken"), len(found))
    end = start + request.get("MaxResults", _PAGE)
    page = {"FormatVersion": _FORMAT, "PriceList": [json.dumps(product) for product in found[start:end]]}
    return page | ({"NextToken": str(end)} if end < len(found) else {})


def _matches(product: Mapping[str, Any], field: str, value: str) -> bool:
    described = product["product"]
    known = {"productFamily": described["productFamily"], "ServiceCode": product["serviceCode"]}
    return {**known, **described["attributes"]}.get(field) == value


def _offset(token: str | None, count: int) -> int:
    if token is None:
        return 0
    if not token.isdecimal() or not 0 < int(token) < count:
        code, message = "InvalidNextTokenException", "The pagination token is invalid. Try again without a token."
        raise AwsError(code, message)
    return int(token)


@cache
def _products() -> tuple[dict[str, Any], ...]:
    return tuple(_documents(json.loads(_FILE.read_text(encoding="utf-8"))))


def _documents(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for group in content["products"]:
        for name, usd in group["usd"].items():
            attributes = {**content["place"], "servicecode": group["serviceCode"], **group["attributes"]}
            attributes[group["named"]] = name
            sku = _sku(group["serviceCode"], attributes)
            tiers = {"0": usd, **group.get("tiers", {}).get(name, {})}
            yield {
                "product": {"productFamily": group["productFamily"], "attributes": attributes, "sku": sku},
                "serviceCode": group["serviceCode"],
                "terms": {"OnDemand": {f"{sku}.{_ON_DEMAND}": _term(sku, name, group["unit"], tiers, content)}},
                "version": re.sub(r"\D", "", content["published"]),
                "publicationDate": content["published"],
            }


def _term(sku: str, name: str, unit: str, tiers: Mapping[str, str], content: Mapping[str, Any]) -> dict[str, Any]:
    dimensions = {}
    for number, (begin, end) in enumerate(pairwise([*tiers, "Inf"])):
        rate = f"{sku}.{_ON_DEMAND}.{_RATE if not number else _sku(_RATE, {'tier': begin})[:10]}"
        dimensions[rate] = {
            "unit": unit,
            "beginRange": begin,
            "endRange": end,
            "description": f"${tiers[begin]} per {unit} of {name}",
            "appliesTo": [],
            "rateCode": rate,
            "pricePerUnit": {"USD": tiers[begin]},
        }
    return {
        "priceDimensions": dimensions,
        "sku": sku,
        "effectiveDate": content["published"],
        "offerTermCode": _ON_DEMAND,
        "termAttributes": {},
    }


def _sku(prefix: str, attributes: Mapping[str, str]) -> str:
    """Return sixteen letters and digits that follow from a product."""
    return hashlib.sha256(json.dumps([prefix, attributes], sort_keys=True).encode()).hexdigest()[:16].upper()


PRICE_LIST_OPERATIONS: Mapping[str, Operation] = {"GetProducts": get_products}

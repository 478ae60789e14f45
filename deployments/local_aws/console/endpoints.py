"""Endpoints, as the console shows them; and the picture that one of them is asked about."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from deployments.local_aws.console.logs import last_lines
from deployments.local_aws.console.metrics import Traffic, traffic_of
from deployments.local_aws.console.pages import Clients, Page, Query
from deployments.local_aws.console.pictures import picture_type

PAGE_SIZE = 25
_LOG_GROUP = "/aws/sagemaker/Endpoints"
_MOST_CHARACTERS = 20_000


@dataclass(frozen=True)
class Variant:
    """A variant of an endpoint as it is configured and as it stands."""

    name: str
    model: str
    instance_type: str | None  # None where it is serverless
    instances: int | None
    desired: int | None
    weight: float

    @property
    def bills(self) -> bool:
        """Whether it costs something though nobody asks."""
        return bool(self.instances)


def endpoints(client: Clients, query: Query) -> Page:
    """Return the endpoints, the newest first."""
    asked = {"NextToken": query["page"]} if "page" in query else {}
    answer = client("sagemaker").list_endpoints(MaxResults=PAGE_SIZE, **asked)
    found = []
    for one in answer["Endpoints"]:
        with suppress(ClientError):  # it was deleted since it was listed
            described = client("sagemaker").describe_endpoint(EndpointName=one["EndpointName"])
            found.append((described, _measured(client, described)))
    values = {"endpoints": found, "page": query.get("page"), "next": answer.get("NextToken")}
    return Page("endpoints.html", values)


def endpoint(client: Clients, _query: Query, name: str) -> Page:
    """Return one endpoint: variants, traffic, log, and the box for a picture."""
    described = client("sagemaker").describe_endpoint(EndpointName=name)
    lines = last_lines(client("logs"), f"{_LOG_GROUP}/{name}")
    values = {"endpoint": described, "variants": _measured(client, described), "lines": lines, "answer": None}
    return Page("endpoint.html", values)


def endpoint_log(client: Clients, _query: Query, name: str) -> Page:
    """Return the last lines of an endpoint's servers."""
    return Page("log.html", {"lines": last_lines(client("logs"), f"{_LOG_GROUP}/{name}")})


def ask(client: Clients, picture: bytes, name: str) -> Page:
    """Return the endpoint's page with its answer about a picture."""
    page = endpoint(client, {}, name)
    return Page(page.template, {**page.values, "answer": answer_to(client("sagemaker-runtime"), name, picture)})


def variants(client: Clients, described: Mapping[str, Any]) -> Sequence[Variant]:
    """Return the variants of an endpoint."""
    config = client("sagemaker").describe_endpoint_config
    try:
        configured = config(EndpointConfigName=described["EndpointConfigName"])["ProductionVariants"]
    except ClientError:  # a configuration may be deleted under its endpoint
        configured = []
    known = {one["VariantName"]: one for one in configured}
    standing = {one["VariantName"]: one for one in described.get("ProductionVariants", [])}
    return [_variant(one, known.get(one, {}), standing.get(one, {})) for one in known | standing]


def _measured(client: Clients, described: Mapping[str, Any]) -> Sequence[tuple[Variant, Traffic]]:
    cloudwatch, name = client("cloudwatch"), described["EndpointName"]
    return [(variant, traffic_of(cloudwatch, name, variant.name)) for variant in variants(client, described)]


def _variant(name: str, known: Mapping[str, Any], standing: Mapping[str, Any]) -> Variant:
    return Variant(
        name=name,
        model=known.get("ModelName", ""),
        instance_type=known.get("InstanceType"),
        instances=standing.get("CurrentInstanceCount"),
        desired=standing.get("DesiredInstanceCount"),
        weight=standing.get("CurrentWeight", known.get("InitialVariantWeight", 1.0)),
    )


def answer_to(runtime: Any, name: str, picture: bytes) -> Mapping[str, Any]:
    """Return what an endpoint says of a picture: a label with its rivals, other words, or why it says nothing."""
    content_type = picture_type(picture) or "application/octet-stream"
    if not picture:
        return {"error": "No picture was chosen."}
    try:
        body = runtime.invoke_endpoint(EndpointName=name, ContentType=content_type, Body=picture)["Body"].read()
    except ClientError as error:
        told = error.response
        return {"error": told.get("OriginalMessage") or told["Error"]["Message"]}
    return _read_answer(body)


def _read_answer(body: bytes) -> Mapping[str, Any]:
    text = body.decode("utf-8", "replace")
    with suppress(ValueError, TypeError, KeyError, AttributeError):
        said = json.loads(text)
        best = {"label": str(said["label"]), "probability": float(said["probability"])}
        rivals = [(str(one["label"]), float(one["probability"])) for one in said.get("top_k", [])]
        return {**best, "top_k": rivals, "model_version": str(said.get("model_version", ""))}
    return {"text": text[:_MOST_CHARACTERS]}

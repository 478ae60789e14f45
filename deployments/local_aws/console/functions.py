"""Lambda's functions, as the console shows them."""

from collections.abc import Mapping, Sequence
from typing import Any

from deployments.local_aws.console.logs import Line, last_lines
from deployments.local_aws.console.pages import Clients, Page, Query


def functions(client: Clients, _query: Query) -> Page:
    """Return the functions."""
    return Page("functions.html", {"functions": all_functions(client)})


def all_functions(client: Clients) -> Sequence[Mapping[str, Any]]:
    """Return every function, the last changed first."""
    pages = client("lambda").get_paginator("list_functions").paginate()
    found = [one for page in pages for one in page["Functions"]]
    return sorted(found, key=lambda one: str(one["LastModified"]), reverse=True)


def function(client: Clients, _query: Query, name: str) -> Page:
    """Return one function: versions, aliases, URLs, concurrency, log."""
    functions = client("lambda")
    described = functions.get_function(FunctionName=name)

    def listed(operation: str, member: str) -> list[dict[str, Any]]:
        pages = functions.get_paginator(operation).paginate(FunctionName=name)
        return [one for page in pages for one in page[member]]

    values = {
        "function": described["Configuration"],
        "reserved": described.get("Concurrency", {}).get("ReservedConcurrentExecutions"),
        "versions": listed("list_versions_by_function", "Versions"),
        "aliases": listed("list_aliases", "Aliases"),
        "urls": listed("list_function_url_configs", "FunctionUrlConfigs"),
        "provisioned": provisioned(client, name),
        "lines": _lines(client, described["Configuration"]),
    }
    return Page("function.html", values)


def function_log(client: Clients, _query: Query, name: str) -> Page:
    """Return the last lines of a function."""
    described = client("lambda").get_function_configuration(FunctionName=name)
    return Page("log.html", {"lines": _lines(client, described)})


def provisioned(client: Clients, name: str) -> Sequence[Mapping[str, Any]]:
    """Return what of a function is kept warm."""
    pages = client("lambda").get_paginator("list_provisioned_concurrency_configs").paginate(FunctionName=name)
    return [one for page in pages for one in page["ProvisionedConcurrencyConfigs"]]


def _lines(client: Clients, described: Mapping[str, Any]) -> Sequence[Line]:
    group = described.get("LoggingConfig", {}).get("LogGroup", f"/aws/lambda/{described['FunctionName']}")
    return last_lines(client("logs"), group)

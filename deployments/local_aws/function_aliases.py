"""Names of a Lambda function's versions."""

from collections.abc import Callable
from typing import Any

from deployments.local_aws.function_store import (
    Alias,
    Function,
    FunctionStore,
    check_revision,
    conflict,
    invalid,
    not_found,
    page,
)
from deployments.local_aws.function_versions import LATEST
from deployments.local_aws.protocol import Operation


class Aliases:
    """The aliases of an account's functions.

    https://docs.aws.amazon.com/lambda/latest/api/API_CreateAlias.html

    Args:
        store: The functions.
        on_change: Called with a function and the name of an alias of it that now leads elsewhere, or nowhere.
    """

    def __init__(self, store: FunctionStore, on_change: Callable[[Function, str], None]) -> None:
        self._store, self._on_change = store, on_change

    def operations(self) -> dict[str, Operation]:
        """Return its operations by their API names."""
        return {
            "CreateAlias": self.create,
            "UpdateAlias": self.update,
            "GetAlias": self.get,
            "DeleteAlias": self.delete,
            "ListAliases": self.list,
        }

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        """Make an alias."""
        with self._store.lock:
            function = self._store.find_unqualified(request)
            name = request["Name"]
            if name in function.aliases:
                msg = f"Alias already exists: {function.qualified_arn(name)}"
                raise conflict(msg)
            alias = Alias(name, request["FunctionVersion"], request.get("Description", ""), _weights(request))
            _check(function, alias)
            function.aliases[name] = alias
            return _described(function, alias)

    def update(self, request: dict[str, Any]) -> dict[str, Any]:
        """Lead an alias elsewhere; events that are being answered are not touched."""
        with self._store.lock:
            function = self._store.find_unqualified(request)
            alias = function.alias(request["Name"])
            check_revision(request, alias.revision_id)
            changed = Alias(
                alias.name,
                request.get("FunctionVersion", alias.number),
                request.get("Description", alias.description),
                _weights(request) if "RoutingConfig" in request else alias.weights,
            )
            _check(function, changed)
            if alias.name in function.provisioned and (changed.weights or changed.number == LATEST):
                message = "The local AWS leads an alias with provisioned concurrency to one published version only"
                raise invalid(message)
            function.aliases[alias.name] = changed
            self._on_change(function, alias.name)
            return _described(function, changed)

    def get(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return an alias."""
        with self._store.lock:
            function = self._store.find_unqualified(request)
            return _described(function, function.alias(request["Name"]))

    def delete(self, request: dict[str, Any]) -> dict[str, Any]:
        """Delete an alias; it may be gone already."""
        with self._store.lock:
            function = self._store.find_unqualified(request)
            if function.aliases.pop(request["Name"], None):
                function.urls.pop(request["Name"], None)
                self._on_change(function, request["Name"])
        return {}

    def list(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return a page of a function's aliases."""
        with self._store.lock:
            function = self._store.find_unqualified(request)
            number = request.get("FunctionVersion")
            found = [alias for alias in function.aliases.values() if number is None or alias.leads_to(number)]
            return page(request, "Aliases", [_described(function, alias) for alias in found])


def _weights(request: dict[str, Any]) -> dict[str, float]:
    return dict(request.get("RoutingConfig", {}).get("AdditionalVersionWeights", {}))


def _check(function: Function, alias: Alias) -> None:
    """Return if an alias leads to versions that exist.

    Raises:
        AwsError: It does not, or shares in a way that Lambda does not.
    """
    for number in (alias.number, *alias.weights):
        if number != LATEST and number not in function.versions:
            msg = f"Function not found: {function.qualified_arn(number)}"
            raise not_found(msg)
    if alias.weights and (LATEST in (alias.number, *alias.weights) or alias.number in alias.weights):
        message = "An alias that leads to two versions leads to published ones that differ"
        raise invalid(message)
    if len(alias.weights) > 1:
        message = "Number of items in AdditionalVersionWeights cannot be greater than 1"
        raise invalid(message)


def _described(function: Function, alias: Alias) -> dict[str, Any]:
    described = {
        "AliasArn": function.qualified_arn(alias.name),
        "Name": alias.name,
        "FunctionVersion": alias.number,
        "Description": alias.description,
        "RevisionId": alias.revision_id,
    }
    return described | ({"RoutingConfig": {"AdditionalVersionWeights": alias.weights}} if alias.weights else {})

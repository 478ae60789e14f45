"""How many events a Lambda function takes at once: reserved and provisioned concurrency."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from deployments.local_aws.function_pool import MOST_AT_ONCE, EnvironmentPool
from deployments.local_aws.function_store import Function, FunctionStore, Provisioned, invalid, not_found, page
from deployments.local_aws.function_versions import LATEST, Version
from deployments.local_aws.protocol import AwsError, Operation

# An account's limit, and what must remain for functions without a reservation.
_ACCOUNT_LIMIT = 1000
_UNRESERVED = 100


class Concurrency:
    """The concurrency of an account's functions.

    https://docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html
    """

    def __init__(self, store: FunctionStore, pool: EnvironmentPool) -> None:
        self._store, self._pool = store, pool

    def operations(self) -> dict[str, Operation]:
        """Return its operations by their API names."""
        return {
            "PutFunctionConcurrency": self.reserve,
            "GetFunctionConcurrency": self.get_reserved,
            "DeleteFunctionConcurrency": self.unreserve,
            "PutProvisionedConcurrencyConfig": self.provision,
            "GetProvisionedConcurrencyConfig": self.get_provisioned,
            "DeleteProvisionedConcurrencyConfig": self.unprovision,
            "ListProvisionedConcurrencyConfigs": self.list_provisioned,
            "GetAccountSettings": self.get_account_settings,
        }

    def reserve(self, request: dict[str, Any]) -> dict[str, Any]:
        """Give a function so many events at once, of its own and no more.

        https://docs.aws.amazon.com/lambda/latest/api/API_PutFunctionConcurrency.html
        """
        count: int = request["ReservedConcurrentExecutions"]
        with self._store.lock:
            function = self._store.find_unqualified(request)
            others = sum(one.reserved or 0 for one in self._store.all() if one is not function)
            if _ACCOUNT_LIMIT - others - count < _UNRESERVED:
                message = (
                    "Specified ReservedConcurrentExecutions for function decreases account's "
                    f"UnreservedConcurrentExecution below its minimum value of [{_UNRESERVED}]."
                )
                raise invalid(message)
            if count < sum(one.requested for one in function.provisioned.values()):
                message = "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution"
                msg = f"{message} for function"
                raise invalid(msg)
            function.reserved = count
        return {"ReservedConcurrentExecutions": count}

    def get_reserved(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return a function's reservation, if it has one."""
        with self._store.lock:
            reserved = self._store.find_unqualified(request).reserved
        return {} if reserved is None else {"ReservedConcurrentExecutions": reserved}

    def unreserve(self, request: dict[str, Any]) -> dict[str, Any]:
        """Take a function's reservation away."""
        with self._store.lock:
            self._store.find_unqualified(request).reserved = None
        return {}

    def provision(self, request: dict[str, Any]) -> dict[str, Any]:
        """Begin to keep environments of a version or an alias that are warm before their first event.

        https://docs.aws.amazon.com/lambda/latest/api/API_PutProvisionedConcurrencyConfig.html
        """
        count: int = request["ProvisionedConcurrentExecutions"]
        with self._store.lock:
            function, qualifier = self._store.find(request)
            version = _published(function, qualifier)
            others = sum(one.requested for name, one in function.provisioned.items() if name != qualifier)
            if function.reserved is not None and others + count > function.reserved:
                message = "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution"
                msg = f"{message} for function"
                raise invalid(msg)
            all_others = sum(one.requested for each in self._store.all() for one in each.provisioned.values())
            own = function.provisioned.get(str(qualifier))
            if all_others - (own.requested if own else 0) + count > MOST_AT_ONCE:
                message = (
                    f"The local AWS keeps {MOST_AT_ONCE} environments at most: this machine serves no more at once"
                )
                raise invalid(message)
            config = Provisioned(count, version.number, datetime.now(UTC))
            function.provisioned[str(qualifier)] = config
            self._apply(function, version)
            return self._described(function, config)

    def get_provisioned(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return how many environments a qualifier has."""
        with self._store.lock:
            function, qualifier = self._store.find(request)
            if qualifier not in function.provisioned:
                code = "ProvisionedConcurrencyConfigNotFoundException"
                message = "No Provisioned Concurrency Config found for this function"
                raise AwsError(code, message, HTTPStatus.NOT_FOUND, {"Type": "User"})
            return self._described(function, function.provisioned[qualifier])

    def unprovision(self, request: dict[str, Any]) -> dict[str, Any]:
        """Keep no environments for a qualifier any more."""
        with self._store.lock:
            function, qualifier = self._store.find(request)
            config = function.provisioned.pop(str(qualifier), None)
            if config is not None and config.number in function.versions:
                self._apply(function, function.versions[config.number])
        return {}

    def list_provisioned(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return a page of what a function's qualifiers have."""
        with self._store.lock:
            function = self._store.find_unqualified(request)
            found = [
                {"FunctionArn": function.qualified_arn(qualifier), **self._described(function, config)}
                for qualifier, config in function.provisioned.items()
            ]
            return page(request, "ProvisionedConcurrencyConfigs", found)

    def get_account_settings(self, _: dict[str, Any]) -> dict[str, Any]:
        """Return the account's limits, and what of them is used."""
        with self._store.lock:
            functions = self._store.all()
            reserved = sum(function.reserved or 0 for function in functions)
            limits = {
                "ConcurrentExecutions": _ACCOUNT_LIMIT,
                "UnreservedConcurrentExecutions": _ACCOUNT_LIMIT - reserved,
            }
            return {"AccountLimit": limits, "AccountUsage": {"FunctionCount": len(functions)}}

    def follow(self, function: Function, alias_name: str) -> None:
        """Move what is provisioned with an alias that leads elsewhere now, or is gone; the lock is held."""
        config = function.provisioned.get(alias_name)
        if config is None:
            return
        old = config.number
        if alias_name in function.aliases:
            config.number, config.modified = function.aliases[alias_name].number, datetime.now(UTC)
            self._apply(function, function.versions[config.number])
        else:
            del function.provisioned[alias_name]
        if old in function.versions:
            self._apply(function, function.versions[old])

    def _apply(self, function: Function, version: Version) -> None:
        number = version.number
        self._pool.keep(version, sum(one.requested for one in function.provisioned.values() if one.number == number))

    def _described(self, function: Function, config: Provisioned) -> dict[str, Any]:
        version = function.versions[config.number]
        allocated, available = self._pool.provisioned(version)
        allocated, available = min(allocated, config.requested), min(available, config.requested)
        failure = self._pool.why_not_provisioned(version)
        described = {
            "RequestedProvisionedConcurrentExecutions": config.requested,
            "AllocatedProvisionedConcurrentExecutions": allocated,
            "AvailableProvisionedConcurrentExecutions": available,
            "Status": "READY" if allocated >= config.requested else "FAILED" if failure else "IN_PROGRESS",
            "LastModified": f"{config.modified:%Y-%m-%dT%H:%M:%S}+0000",
        }
        return described | ({"StatusReason": f"FUNCTION_ERROR_INIT_FAILURE: {failure}"} if failure else {})


def _published(function: Function, qualifier: str | None) -> Version:
    """Return the version whose environments a qualifier is to have.

    Raises:
        AwsError: It is not published, does not exist, or is shared.
    """
    if qualifier in (None, LATEST):
        message = "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
        raise invalid(message)
    if qualifier in function.aliases:
        alias = function.aliases[str(qualifier)]
        if alias.weights:
            message = "The local AWS does not implement provisioned concurrency for an alias with RoutingConfig"
            raise invalid(message)
        if alias.number == LATEST:
            message = "Alias with weights can not be used with Provisioned Concurrency: it leads to $LATEST"
            raise invalid(message)
        return function.versions[alias.number]
    if qualifier not in function.versions:
        msg = f"Function not found: {function.qualified_arn(qualifier)}"
        raise not_found(msg)
    return function.versions[str(qualifier)]

"""AWS Lambda: functions that run in processes of their own, without Docker."""

import time
from dataclasses import replace
from typing import Any

from deployments.local_aws.account import Account
from deployments.local_aws.function_aliases import Aliases
from deployments.local_aws.function_code import MOST_ZIP_BYTES, code_of
from deployments.local_aws.function_concurrency import Concurrency
from deployments.local_aws.function_invocations import Invocations
from deployments.local_aws.function_permissions import Permissions
from deployments.local_aws.function_pool import EnvironmentPool
from deployments.local_aws.function_requests import SETTINGS, check_settings, checked
from deployments.local_aws.function_store import (
    Function,
    FunctionStore,
    check_revision,
    conflict,
    invalid,
    page,
)
from deployments.local_aws.function_urls import FunctionUrls
from deployments.local_aws.function_versions import LATEST, Code, Version
from deployments.local_aws.protocol import Operation

# A zip in base64 within JSON.
MAX_REQUEST_BYTES = MOST_ZIP_BYTES * 4 // 3 + 1024 * 1024


class Functions:
    """The functions of an account.

    https://docs.aws.amazon.com/lambda/latest/api/API_CreateFunction.html
    """

    settle_seconds = 0.05  # until what is new or changed is Active

    def __init__(self, account: Account) -> None:
        folder = account.root / "functions"
        self._account, self._code_folder = account, folder / "code"
        self._store = FunctionStore(account.account_id, account.region)
        self._pool = EnvironmentPool(account, folder / "environments")
        self._invocations = Invocations(self._store, self._pool)
        self._concurrency = Concurrency(self._store, self._pool)
        self._aliases = Aliases(self._store, self._concurrency.follow)
        self._permissions = Permissions(self._store)
        self._urls = FunctionUrls(account, self._store, self._invocations)

    def operations(self) -> dict[str, Operation]:
        """Return its operations by their API names; each refuses what it would not do."""
        return checked(
            {
                "CreateFunction": self.create,
                "UpdateFunctionCode": self.update_code,
                "UpdateFunctionConfiguration": self.update_configuration,
                "GetFunction": self.get,
                "GetFunctionConfiguration": self.get_configuration,
                "DeleteFunction": self.delete,
                "ListFunctions": self.list,
                "PublishVersion": self.publish,
                "ListVersionsByFunction": self.list_versions,
                "TagResource": self.tag,
                "UntagResource": self.untag,
                "ListTags": self.list_tags,
                "Invoke": self._invocations.invoke,
                **self._aliases.operations(),
                **self._concurrency.operations(),
                **self._permissions.operations(),
                **self._urls.operations(),
            }
        )

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        """Make a function."""
        name, _ = self._store.name_in(request["FunctionName"])
        settings = {key: request[key] for key in SETTINGS if key in request}
        check_settings(self._account, settings)
        with self._store.lock:
            self._store.require_free(name)
        code = code_of(self._account, request["Code"], self._code_folder)
        latest = Version(name, LATEST, self._store.arn(name), settings, code, self._settles_at())
        function = Function(latest, dict(request.get("Tags", {})))
        with self._store.lock:
            self._store.add(function)
            return self._published(function).describe() if request.get("Publish") else latest.describe()

    def update_code(self, request: dict[str, Any]) -> dict[str, Any]:
        """Give $LATEST another deployment package.

        https://docs.aws.amazon.com/lambda/latest/api/API_UpdateFunctionCode.html
        """
        with self._store.lock:
            self._changeable(request)
        code = code_of(self._account, request, self._code_folder)
        with self._store.lock:
            function = self._changeable(request)
            if request.get("DryRun"):
                return replace(function.latest, code=code).describe()
            self._replace_latest(function, function.latest.settings, code)
            return self._published(function).describe() if request.get("Publish") else function.latest.describe()

    def update_configuration(self, request: dict[str, Any]) -> dict[str, Any]:
        """Give $LATEST other settings; those that are not named stay.

        https://docs.aws.amazon.com/lambda/latest/api/API_UpdateFunctionConfiguration.html
        """
        with self._store.lock:
            function = self._changeable(request)
            settings = {**function.latest.settings, **{key: request[key] for key in SETTINGS if key in request}}
            check_settings(self._account, settings)
            self._replace_latest(function, settings, function.latest.code)
            return function.latest.describe()

    def get(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return a version's configuration, and what belongs to its function.

        Where the code could be downloaded from is left out: the local AWS does not serve it.
        """
        with self._store.lock:
            function, qualifier = self._store.find(request)
            answer: dict[str, Any] = {
                "Configuration": self._described(function, qualifier),
                "Code": {"RepositoryType": "S3"},
                "Tags": dict(function.tags),
            }
            if function.reserved is not None:
                answer["Concurrency"] = {"ReservedConcurrentExecutions": function.reserved}
            return answer

    def get_configuration(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return a version's configuration."""
        with self._store.lock:
            return self._described(*self._store.find(request))

    def delete(self, request: dict[str, Any]) -> dict[str, Any]:
        """Delete a version, or the function with all of them.

        https://docs.aws.amazon.com/lambda/latest/api/API_DeleteFunction.html
        """
        with self._store.lock:
            function, number = self._store.find(request)
            if number is None:
                for version in (function.latest, *function.versions.values()):
                    self._pool.retire(version)
                self._store.remove(function.name)
                return {}
            if number not in function.versions:
                message = f"Only published versions can be deleted on their own, and {number} is none"
                raise invalid(message)
            aliases = sorted(alias.name for alias in function.aliases.values() if alias.leads_to(number))
            if aliases:
                message = f"Unable to delete version because the following aliases reference it: [{', '.join(aliases)}]"
                raise conflict(message)
            function.provisioned.pop(number, None)
            self._pool.retire(function.versions.pop(number))
        return {}

    def list(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return a page of functions, or of all their versions."""
        with self._store.lock:
            found = [function.latest for function in self._store.all()]
            if request.get("FunctionVersion") == "ALL":
                found += [version for function in self._store.all() for version in function.versions.values()]
            return page(request, "Functions", [version.describe() for version in found])

    def publish(self, request: dict[str, Any]) -> dict[str, Any]:
        """Make a version of $LATEST that never changes, unless the last one is the same.

        https://docs.aws.amazon.com/lambda/latest/api/API_PublishVersion.html
        """
        with self._store.lock:
            function = self._changeable(request)
            sha256 = function.latest.code.sha256
            if request.get("CodeSha256", sha256) != sha256:
                message = (
                    f"CodeSHA256 ({request['CodeSha256']}) is different from current CodeSHA256 in $LATEST ({sha256}). "
                    "Please try again with the CodeSHA256 in $LATEST."
                )
                raise invalid(message)
            return self._published(function, request.get("Description")).describe()

    def list_versions(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return a page of a function's versions, $LATEST first."""
        with self._store.lock:
            function = self._store.find_unqualified(request)
            return page(request, "Versions", [one.describe() for one in (function.latest, *function.versions.values())])

    def tag(self, request: dict[str, Any]) -> dict[str, Any]:
        """Add tags to a function, or change them."""
        with self._store.lock:
            self._tagged(request).tags.update(request["Tags"])
        return {}

    def untag(self, request: dict[str, Any]) -> dict[str, Any]:
        """Remove tags from a function."""
        with self._store.lock:
            tags = self._tagged(request).tags
            for key in request["TagKeys"]:
                tags.pop(key, None)
        return {}

    def list_tags(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return a function's tags."""
        with self._store.lock:
            return {"Tags": dict(self._tagged(request).tags)}

    def stop(self) -> None:
        """End every function's processes."""
        self._urls.stop()
        self._pool.stop()
        self._invocations.stop()

    def _tagged(self, request: dict[str, Any]) -> Function:
        return self._store.find_unqualified({"FunctionName": request["Resource"]})

    def _described(self, function: Function, qualifier: str | None) -> dict[str, Any]:
        if qualifier in function.aliases:
            alias = function.aliases[str(qualifier)]
            described = function.version(alias.number).describe()
            return described | {"FunctionArn": function.qualified_arn(qualifier)}
        described = function.version(qualifier).describe()
        return described | ({"FunctionArn": function.qualified_arn(qualifier)} if qualifier else {})

    def _changeable(self, request: dict[str, Any]) -> Function:
        """Return the function that a request would change.

        Raises:
            AwsError: There is none, it is changing already, or it has another revision.
        """
        function = self._store.find_unqualified(request)
        latest = function.latest
        if not latest.settled:
            state = (
                "The function is currently in the following state: Pending"
                if latest.is_new
                else f"An update is in progress for resource: {function.arn}"
            )
            message = f"The operation cannot be performed at this time. {state}"
            raise conflict(message)
        check_revision(request, latest.revision_id)
        return function

    def _replace_latest(self, function: Function, settings: Any, code: Code) -> None:
        old = function.latest
        function.latest = Version(old.name, LATEST, old.arn, settings, code, self._settles_at(), is_new=False)
        self._pool.retire(old)

    def _published(self, function: Function, description: str | None = None) -> Version:
        last = function.versions.get(str(function.last_number))
        if last is not None and last.content == function.latest.content:
            return last
        function.last_number += 1
        number, settings = str(function.last_number), dict(function.latest.settings)
        if description is not None:
            settings["Description"] = description
        version = Version(function.name, number, function.arn, settings, function.latest.code, self._settles_at())
        function.versions[number] = version
        return version

    def _settles_at(self) -> float:
        return time.monotonic() + self.settle_seconds

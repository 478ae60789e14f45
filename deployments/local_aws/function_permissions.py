"""Who else may call a Lambda function: resource-based policies, kept and told.

Who calls the local AWS is of its own account, where the caller's own policies are enough.
"""

import json
import uuid
from typing import Any

from deployments.local_aws.function_store import Function, FunctionStore, check_revision, conflict, not_found
from deployments.local_aws.protocol import Operation


class Permissions:
    """The resource-based policies of an account's functions.

    https://docs.aws.amazon.com/lambda/latest/api/API_AddPermission.html
    """

    def __init__(self, store: FunctionStore) -> None:
        self._store = store
        self._revisions: dict[str, str] = {}  # by qualified ARN

    def operations(self) -> dict[str, Operation]:
        """Return its operations by their API names."""
        return {"AddPermission": self.add, "GetPolicy": self.get, "RemovePermission": self.remove}

    def add(self, request: dict[str, Any]) -> dict[str, Any]:
        """Keep a statement."""
        with self._store.lock:
            function, qualifier = self._existing(request)
            statements = function.permissions.setdefault(qualifier, {})
            sid = request["StatementId"]
            if sid in statements:
                msg = (
                    f"The statement id ({sid}) provided already exists. Please provide a new statement id, or remove "
                    "the existing statement."
                )
                raise conflict(msg)
            statement = _statement(request, function.qualified_arn(qualifier))
            statements[sid] = statement
            self._revisions[function.qualified_arn(qualifier)] = str(uuid.uuid4())
            return {"Statement": json.dumps(statement)}

    def get(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the policy."""
        with self._store.lock:
            function, qualifier = self._existing(request)
            statements = function.permissions.get(qualifier)
            if not statements:
                raise _missing()
            policy = {"Version": "2012-10-17", "Id": "default", "Statement": list(statements.values())}
            return {"Policy": json.dumps(policy), "RevisionId": self._revisions[function.qualified_arn(qualifier)]}

    def remove(self, request: dict[str, Any]) -> dict[str, Any]:
        """Forget a statement."""
        with self._store.lock:
            function, qualifier = self._existing(request)
            statements = function.permissions.get(qualifier, {})
            if request["StatementId"] not in statements:
                raise _missing()
            check_revision(request, self._revisions[function.qualified_arn(qualifier)])
            del statements[request["StatementId"]]
            self._revisions[function.qualified_arn(qualifier)] = str(uuid.uuid4())
        return {}

    def _existing(self, request: dict[str, Any]) -> tuple[Function, str | None]:
        function, qualifier = self._store.find(request)
        function.version(qualifier)
        return function, qualifier


def _statement(request: dict[str, Any], arn: str) -> dict[str, Any]:
    principal = request["Principal"]
    service = principal.endswith((".amazonaws.com", ".amazon.com"))
    conditions: dict[str, dict[str, str]] = {}
    for name, operator, key in (
        ("SourceArn", "ArnLike", "AWS:SourceArn"),
        ("SourceAccount", "StringEquals", "AWS:SourceAccount"),
        ("PrincipalOrgID", "StringEquals", "aws:PrincipalOrgID"),
        ("FunctionUrlAuthType", "StringEquals", "lambda:FunctionUrlAuthType"),
        ("InvokedViaFunctionUrl", "Bool", "lambda:InvokedViaFunctionUrl"),
    ):
        if name in request:
            conditions.setdefault(operator, {})[key] = (
                str(request[name]).lower() if operator == "Bool" else request[name]
            )
    statement = {
        "Sid": request["StatementId"],
        "Effect": "Allow",
        "Principal": "*" if principal == "*" else {"Service": principal} if service else {"AWS": principal},
        "Action": request["Action"],
        "Resource": arn,
    }
    return statement | ({"Condition": conditions} if conditions else {})


def _missing() -> Any:
    return not_found("The resource you requested does not exist.")

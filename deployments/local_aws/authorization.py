"""Whether a caller may do what a request asks for: by its identity policies, on every call.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic_policy-eval-basics.html
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from deployments.local_aws.access_requests import Directory, Request
from deployments.local_aws.access_table import needed
from deployments.local_aws.policy_conditions import Context
from deployments.local_aws.policy_evaluation import Access, Decision, evaluate
from deployments.local_aws.principals import Principal, Principals
from deployments.local_aws.protocol import AwsError
from deployments.local_aws.usage import UseRecord


class Authorization:
    """Decides for the callers of one account, and keeps a record of what they used."""

    def __init__(self, principals: Principals, directory: Directory, record: UseRecord) -> None:
        self._principals, self._directory, self._record = principals, directory, record

    def find(self, access_key_id: str) -> Principal:
        """Return who has the access key."""
        return self._principals.find(access_key_id)

    def check(self, caller: Principal, service: str, operation: str, members: Mapping[str, Any], protocol: str) -> None:
        """Let the call pass, if everything that it needs is allowed.

        Args:
            caller: Who calls.
            service: botocore's name of the service.
            operation: As AWS spells it.
            members: Of the request.
            protocol: Of the request; it decides how a refusal is spelled.

        Raises:
            AwsError: In the service's own words for access denied.
        """
        if caller.is_administrator:
            return
        accesses = needed(service, Request(operation, members, self._directory))
        carried = self._carried(caller)
        for access in accesses:
            asked = Access(access.action, access.resource, {**carried, **access.context})
            decision = evaluate(caller.documents, asked)
            self._record.add(caller.name, access.action, access.resource, allowed=decision.allowed)
            if not decision.allowed:
                raise _refusal(caller, access, decision, service, protocol)

    def _carried(self, caller: Principal) -> Context:
        """Return the condition keys that every request has. Loopback stands for TLS."""
        now = datetime.now(UTC)
        return {
            **caller.context,
            "aws:currenttime": (now.isoformat(),),
            "aws:epochtime": (str(int(now.timestamp())),),
            "aws:requestedregion": (self._directory.region,),
            "aws:securetransport": ("true",),
            "aws:sourceip": ("127.0.0.1",),
        }


def _refusal(caller: Principal, access: Access, decision: Decision, service: str, protocol: str) -> AwsError:
    """Return the error in AWS's words.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html
    """
    resource = f'"{access.resource}"' if service == "s3" else access.resource
    on = "" if access.resource == "*" else f" on resource: {resource}"
    why = (
        "with an explicit deny in an identity-based policy"
        if decision.is_explicit
        else f"because no identity-based policy allows the {access.action} action"
    )
    message = f"User: {caller.arn} is not authorized to perform: {access.action}{on} {why}"
    if decision.unclear:
        message += f" (the local AWS cannot evaluate {', '.join(decision.unclear)})"
    if protocol == "ec2":
        return AwsError("UnauthorizedOperation", f"You are not authorized to perform this operation. {message}", 403)
    if protocol.endswith("json") and service != "cloudwatch":  # its clients know the errors of its older protocol
        return AwsError("AccessDeniedException", message, 400 if protocol == "json" else 403)
    return AwsError("AccessDenied", message, 403)

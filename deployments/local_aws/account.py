"""The one account of the local AWS: who may call it, and clients that call it."""

import json
import os
import secrets
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.iam.exceptions import NotFoundException
from moto.iam.models import IAMBackend, Role, iam_backends
from moto.sts.models import STSBackend, sts_backends

from deployments.local_aws.authorization import Authorization
from deployments.local_aws.principals import ADMINISTRATOR
from deployments.local_aws.protocol import AwsError
from deployments.local_aws.tags import Tags

JOB_SESSION_SECONDS = 12 * 3600  # SageMaker refreshes a job's credentials; here they outlive what a machine runs

# The gateway answers at once or not at all, so a retry would only repeat a job's side effects.
_CLIENT_CONFIG = Config(
    retries={"mode": "standard", "total_max_attempts": 3},
    max_pool_connections=32,
    s3={"addressing_style": "path"},
    proxies={},  # loopback never goes through a proxy, whatever HTTP_PROXY says
)
# botocore's settings that would let the user's own profiles in: (name in the config file, environment, default, cast).
_NO_PROFILES: dict[str, tuple[None, list[str], str | None, None]] = {
    "profile": (None, [], None, None),
    "config_file": (None, [], os.devnull, None),
    "credentials_file": (None, [], os.devnull, None),
}


@dataclass(frozen=True)
class Credentials:
    """An access key; temporary ones have a token and an end."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None
    expires: datetime | None = None

    @property
    def expired(self) -> bool:
        """Whether AWS would answer ExpiredToken."""
        return self.expires is not None and datetime.now(UTC) >= self.expires


class Account:
    """The account: its number, region, folder, administrator and roles.

    ``endpoint_url`` is empty until the server listens; without an ``authorization``, whoever has a key may do
    everything. ``types_without_capacity`` are the instance types of which the
    region has no more, `spot:TYPE` as spot only: who asks for one is told so, as it happens on AWS.
    """

    def __init__(self, root: Path, region: str = "us-east-1") -> None:
        self.account_id: str = DEFAULT_ACCOUNT_ID
        self.region = region
        self.root = root
        self.endpoint_url = ""
        self.authorization: Authorization | None = None
        self.sagemaker_tags = Tags()
        self.types_without_capacity: set[str] = set()
        self.credentials = self.create_user(ADMINISTRATOR)
        self._session = boto3.Session(botocore_session=botocore.session.Session(session_vars=_NO_PROFILES))
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()

    def client(self, service: str, role_arn: str | None = None, *, principal: str = "sagemaker.amazonaws.com") -> Any:
        """Return a boto3 client through the gateway: as the administrator, or as a role that trusts the principal.

        Raises:
            AwsError: The role does not exist or does not trust the principal.
        """
        if role_arn is not None:
            return self.client_with(service, self.assume_as_service(role_arn, principal))
        if service not in self._clients:
            self._clients[service] = self.client_with(service, self.credentials)
        return self._clients[service]

    def client_with(self, service: str, credentials: Credentials) -> Any:
        """Return a boto3 client through the gateway with the credentials."""
        with self._lock:  # making a client is the one thing in boto3 that threads must not do at once
            return self._session.client(  # type: ignore[call-overload]
                service,
                region_name=self.region,
                endpoint_url=self.endpoint_url,
                aws_access_key_id=credentials.access_key_id,
                aws_secret_access_key=credentials.secret_access_key,
                aws_session_token=credentials.session_token,
                config=_CLIENT_CONFIG,
            )

    def role_environment(self, role_arn: str, *, principal: str = "sagemaker.amazonaws.com") -> dict[str, str]:
        """Return the variables with which a job's process calls AWS as its role.

        Raises:
            AwsError: The role does not exist or does not trust the principal.
        """
        return self.environment(self.assume_as_service(role_arn, principal))

    def environment(self, credentials: Credentials) -> dict[str, str]:
        """Return the variables that point an AWS client here."""
        variables = {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ACCESS_KEY_ID": credentials.access_key_id,
            "AWS_SECRET_ACCESS_KEY": credentials.secret_access_key,
        }
        if credentials.session_token is not None:
            variables["AWS_SESSION_TOKEN"] = credentials.session_token
        return variables

    def assume_as_service(self, role_arn: str, principal: str, session_name: str | None = None) -> Credentials:
        """Return temporary credentials of the role, as SageMaker, Lambda or EC2 take them.

        Raises:
            AwsError: The role does not exist or does not trust the principal.
        """
        role = self.find_role(role_arn)
        if role is None or not _trusts(role, "Service", principal):
            code, message = (
                "ValidationException",
                (
                    f"Could not assume role {role_arn}. Please ensure that the role exists and allows principal "
                    f"'{principal}' to assume the role."
                ),
            )
            raise AwsError(code, message)
        return self.assume_role(role_arn, session_name or _session_name(principal), JOB_SESSION_SECONDS)

    def assume_role(self, role_arn: str, session_name: str, duration_seconds: int) -> Credentials:
        """Return temporary credentials that moto's STS knows; whether the caller may have them is checked before."""
        role = self._sts.assume_role(
            region_name=self.region,
            role_session_name=session_name,
            role_arn=role_arn,
            policy="",
            duration=duration_seconds,
            external_id="",
        )
        return Credentials(
            role.access_key_id, role.secret_access_key, role.session_token, role.expiration.replace(tzinfo=UTC)
        )

    def trusts_own_users(self, role_arn: str) -> bool:
        """Return whether the role exists and lets this account's users assume it."""
        role = self.find_role(role_arn)
        root = f"arn:aws:iam::{self.account_id}:root"
        return role is not None and any(_trusts(role, "AWS", name) for name in ("*", self.account_id, root))

    def find_role(self, role_arn: str) -> Role | None:
        """Return IAM's role of that ARN, or None."""
        try:
            return self._iam.get_role_by_arn(role_arn)
        except NotFoundException:
            return None

    def find_credentials(self, access_key_id: str) -> Credentials | None:
        """Return the credentials that STS or IAM issued under the access key, or None; an inactive key is none."""
        assumed = self._sts.get_assumed_role_from_access_key(access_key_id)
        if assumed is not None:
            return Credentials(
                access_key_id, assumed.secret_access_key, assumed.session_token, assumed.expiration.replace(tzinfo=UTC)
            )
        for key in self._iam.get_all_access_keys_for_all_users():
            if key.access_key_id == access_key_id and key.status == "Active":
                return Credentials(access_key_id, key.secret_access_key)
        return None

    def create_user(self, name: str, *policy_arns: str) -> Credentials:
        """Make a user of IAM with these policies, and return its access key."""
        self._iam.create_user(self.region, name)
        for arn in policy_arns:
            self._iam.attach_user_policy(arn, name)
        key = self._iam.create_access_key(name)
        key.secret_access_key = secrets.token_urlsafe(30)  # moto's own come from `random`
        return Credentials(key.access_key_id, key.secret_access_key)

    @property
    def _iam(self) -> IAMBackend:
        return iam_backends[self.account_id]["aws"]

    @property
    def _sts(self) -> STSBackend:
        return sts_backends[self.account_id]["aws"]


def _trusts(role: Role, kind: str, principal: str) -> bool:
    document = role.assume_role_policy_document
    statements = (json.loads(document) if isinstance(document, str) else document)["Statement"]
    return any(
        statement["Effect"] == "Allow"
        and "sts:AssumeRole" in _listed(statement.get("Action", []))
        and principal in _principals(statement, kind)
        for statement in ([statements] if isinstance(statements, dict) else statements)
    )


def _session_name(principal: str) -> str:
    service = principal.partition(".")[0]
    return "SageMaker" if service == "sagemaker" else service


def _principals(statement: dict[str, Any], kind: str) -> list[str]:
    principal = statement.get("Principal", {})
    return [principal] if isinstance(principal, str) else _listed(principal.get(kind, []))


def _listed(value: str | Iterable[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)

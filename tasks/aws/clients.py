"""boto3 clients as this project wants them: patient, shared, pointed by the environment alone."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import boto3
from botocore.config import Config

from tasks.aws.errors import SettingsError

_ATTEMPTS = 10
_CONNECTIONS = 32

# What decides where a client points; a change of any of these asks for another client.
_DECIDING = (
    "AWS_ENDPOINT_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
)
_lock = threading.Lock()
_SESSION_NAME = "sagemaker-flows"
_Keys = tuple[str, str, str]  # access key, secret key and token, in the order in which boto3 takes them


@dataclass(frozen=True)
class _Pointing:
    """What decides where a client points, and who calls."""

    environment: tuple[str | None, ...]
    keys: _Keys | None  # of a role; None: the environment's own


_acting: ContextVar[_Keys | None] = ContextVar("acting", default=None)


def client(service: str, region: str | None = None, attempts: int = _ATTEMPTS, connections: int = _CONNECTIONS) -> Any:
    """Return the client of a service, made once per environment; safe to share between threads.

    Args:
        service: boto3's name of the service.
        region: For the few services that are not served everywhere; the environment's region otherwise.
        attempts: How often a call is made before its transient error is raised.
        connections: How many calls may be under way at once; more wait for one of them.

    Raises:
        SettingsError: No region is set.
    """
    # Making a client is what is not thread-safe in boto3; using one is.
    with _lock:
        pointing = _Pointing(tuple(os.environ.get(name) for name in _DECIDING), _acting.get())
        return _make_client(service, region, attempts, connections, pointing)


@contextmanager
def acting_as(role_arn: str) -> Iterator[None]:
    """Make the calls of a block as a role: with its rights, and with none of the caller's own.

    Raises:
        ClientError: The caller may not assume the role.
    """
    answer = client("sts").assume_role(RoleArn=role_arn, RoleSessionName=_SESSION_NAME)["Credentials"]
    token = _acting.set((answer["AccessKeyId"], answer["SecretAccessKey"], answer["SessionToken"]))
    try:
        yield
    finally:
        _acting.reset(token)


def forget_clients() -> None:
    """Drop every client, so that the next call reads the credentials anew (they had expired)."""
    with _lock:
        _make_client.cache_clear()
        _session.cache_clear()


@lru_cache(maxsize=64)
def _make_client(service: str, region: str | None, attempts: int, connections: int, pointing: _Pointing) -> Any:
    # botocore reads AWS_DEFAULT_REGION alone; AWS's other SDKs, Lambda and the containers set AWS_REGION.
    chosen = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    session = _session(chosen, pointing)
    if session.region_name is None:
        msg = "No AWS region is set: set AWS_REGION, for example to us-east-1, or start the local AWS (make local-aws)"
        raise SettingsError(msg)
    # The default mode of botocore is still "legacy": 5 attempts, no backoff on many throttling codes.
    config = Config(retries={"mode": "standard", "total_max_attempts": attempts}, max_pool_connections=connections)
    # The stubs know one overload per service, and no service that is a variable.
    return session.client(service, config=config)  # type: ignore[call-overload]


@lru_cache(maxsize=8)
def _session(region: str | None, pointing: _Pointing) -> boto3.session.Session:
    """Return a session, which reads what botocore knows of regions and endpoints: 0.3 s, once for all clients."""
    access_key, secret_key, token = pointing.keys or (None, None, None)
    return boto3.session.Session(access_key, secret_key, token, region)

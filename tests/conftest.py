"""Every test runs far from real AWS; those that ask for `local_aws` have one of their own on loopback."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # it takes 2 s to import, and most tests need none
    from deployments.local_aws.server import LocalAws

# The discard port: nothing listens there, so a client that a test forgot to point somewhere fails at once.
NOWHERE = "http://127.0.0.1:9"


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Replace every variable that an AWS client reads, and put all back afterwards."""
    before = dict(os.environ)
    for name in before:
        if name.startswith("AWS_"):
            del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="session", autouse=True)
def no_real_aws() -> Iterator[None]:
    """No test may reach a real account, whatever the machine has: no credentials, no profile, no way out."""
    variables = {
        "AWS_ENDPOINT_URL": NOWHERE,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with _environment(variables):
        yield


@pytest.fixture(scope="session")
def local_aws(no_real_aws: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator["LocalAws"]:
    """Return the local AWS with the foundation laid; the environment points at it from here to the session's end.

    With pytest-xdist every worker has its own, made when the first of its tests asks.
    """
    from deployments.local_aws.foundation import lay_foundation
    from deployments.local_aws.server import running

    with running(tmp_path_factory.mktemp("local_aws")) as aws:
        lay_foundation(aws.account)
        with _environment(aws.environment):
            yield aws

"""Every test runs far from real AWS; those that ask for `local_aws` have one of their own on loopback."""

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # it takes 2 s to import, and most tests need none
    from deployments.local_aws.server import LocalAws

NewPrefectServer = Callable[[], AbstractContextManager[dict[str, str]]]
# The discard port: nothing listens there, so a client that a test forgot to point somewhere fails at once.
NOWHERE = "http://127.0.0.1:9"
# The files that take longest begin first: one that begins last is waited for by idle workers.
LONGEST = (
    "tests/flows/test_journey.py",
    "tests/ui/test_prefect_pages.py",
    "tests/flows/test_cancelled.py",
    "tests/docs/test_docs.py",
    "tests/training/test_several_instances.py",
    "tests/deployments/test_prefect_deployments.py",
    "tests/tasks/test_rollouts.py",
)
# An ASGI application that answers as a model server of this project does.
SERVED = """
import json

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            await send({"type": event + ".complete"})
            if event == "lifespan.shutdown":
                return
    while (await receive()).get("more_body"):
        pass
    cat = {"label": LABEL, "probability": 0.9}
    status = 200 if scope["path"] == "/ping" else STATUS
    answer = {**cat, "top_k": [cat], "model_version": "1"} if status == 200 else {"error": "the model is tired"}
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

def create():
    return app
"""
CONFIG = {"applications": [{"name": "a", "import_path": "served:app", "args": {"asgi_app": "served:create"}}]}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {path: place for place, path in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.nodeid.partition("::")[0], len(order)))


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


@pytest.fixture(scope="session")
def new_prefect_server(tmp_path_factory: pytest.TempPathFactory) -> NewPrefectServer:
    """Run a Prefect server of one's own, and give the environment of its clients.

    Each has a copy of a database that is laid once: that takes a server 10 s.
    """
    from deployments.prefect_server import running

    laid = tmp_path_factory.mktemp("prefect")
    with running(laid):
        pass
    return lambda: running(shutil.copytree(laid, tmp_path_factory.mktemp("prefect") / "home"))


@pytest.fixture(scope="session")
def tar_gz() -> Callable[[dict[str, bytes]], bytes]:
    """Pack files into an archive, as programs and model packages are."""
    return _tar_gz


@pytest.fixture(scope="session")
def stage_package(local_aws: object) -> Callable[..., str]:
    """Stage a model package whose ASGI application answers with a label, or with a status that is no success."""
    import boto3

    from tasks.aws.settings import load_settings

    def staged(name: str, label: str = "cat", status: int = 200, served: str = SERVED) -> str:
        source = served.replace("LABEL", repr(label)).replace("STATUS", str(status))
        key, bucket = f"jobs/{name}/output/model.tar.gz", load_settings().bucket
        body = _tar_gz({"served.py": source.encode(), "config.yaml": json.dumps(CONFIG).encode()})
        boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=body)
        return f"s3://{bucket}/{key}"

    return staged


def _tar_gz(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, body in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
    return buffer.getvalue()

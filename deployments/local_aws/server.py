"""The local AWS as a server in this process: loopback only, its own credentials, gone when the block ends."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from moto.core.base_backend import BackendDict

from deployments.local_aws.account import Account, Credentials
from deployments.local_aws.authorization import Authorization
from deployments.local_aws.console.access import ConsoleKey
from deployments.local_aws.console.application import PREFIX, Console
from deployments.local_aws.directory import AccountDirectory
from deployments.local_aws.gateway import Gateway
from deployments.local_aws.principals import Principals
from deployments.local_aws.services import Catalogue, standard_catalogue
from deployments.local_aws.signatures import SignatureCheck
from deployments.local_aws.usage import RECORD_FILE, UseRecord
from deployments.local_aws.worker import create_worker
from deployments.local_aws.wsgi_server import HOST, listening

POLL_SECONDS = "0.5"  # jobs here change state in seconds

_one_at_a_time = threading.Lock()  # moto keeps its state in module globals


@dataclass(frozen=True)
class LocalAws:
    """A running local AWS; its record says who used what."""

    account: Account
    record: UseRecord
    console_key: ConsoleKey

    @property
    def console_url(self) -> str:
        """Where a browser looks at it; whoever has this address sees what the administrator sees."""
        return f"{self.endpoint_url}/?token={self.console_key.token}"

    @property
    def endpoint_url(self) -> str:
        """Where it listens."""
        return self.account.endpoint_url

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which every AWS client finds it, as its administrator, and finds nothing else."""
        return self._environment_of(self.account.credentials)

    @cached_property
    def worker_environment(self) -> dict[str, str]:
        """The same as the worker, to whom the foundation's policies are allowed and nothing else."""
        return self._environment_of(create_worker(self.account))

    def _environment_of(self, credentials: Credentials) -> dict[str, str]:
        no_proxy = ",".join(filter(None, (os.environ.get("NO_PROXY"), HOST)))
        return {
            **self.account.environment(credentials),
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "NO_PROXY": no_proxy,
            "no_proxy": no_proxy,
            "SAGEMAKER_FLOWS_POLL_SECONDS": POLL_SECONDS,
            # Without the token: whoever follows a link there is told how the console is opened.
            "SAGEMAKER_FLOWS_CONSOLE_URL": f"{self.endpoint_url}{PREFIX}",
            # The machine images here are this machine, and the environment with torch is this one.
            "SAGEMAKER_FLOWS_EC2_VENV": sys.prefix,
        }


@contextmanager
def running(
    root: Path, port: int = 0, catalogue: Callable[[Account], Catalogue] = standard_catalogue
) -> Iterator[LocalAws]:
    """Run the local AWS in this process; its files are under root. Ends every process that it started.

    Raises:
        PortInUseError: The port is taken; 0 finds a free one.
        RuntimeError: One is running in this process already.
    """
    if not _one_at_a_time.acquire(blocking=False):
        msg = "A local AWS is running in this process already; a process can hold one"
        raise RuntimeError(msg)
    try:
        BackendDict.reset()  # what an earlier one in this process left in moto
        root.mkdir(parents=True, exist_ok=True)
        account = Account(root)
        record = UseRecord(root / RECORD_FILE)
        account.authorization = Authorization(Principals(account.account_id), AccountDirectory(account), record)
        services = catalogue(account)
        key = ConsoleKey()
        signatures = SignatureCheck(account.find_credentials, account.region)
        gateway = Gateway(signatures, services, account.authorization, Console(account.client, key))
        with listening(gateway, port) as account.endpoint_url:
            try:
                yield LocalAws(account, record, key)
            finally:
                services.stop()  # while the server still takes the last words of what is stopped
    finally:
        _one_at_a_time.release()

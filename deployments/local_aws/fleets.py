"""The servers of an endpoint, of one configuration: started together, balanced, replaced when they die, drained."""

import random
import shutil
import threading
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.local_aws.account import Account
from deployments.local_aws.containers import stop_all
from deployments.local_aws.log_streams import LogStream
from deployments.local_aws.model_server import ModelServer, StartError
from deployments.local_aws.protocol import AwsError

LOG_GROUP = "/aws/sagemaker/Endpoints"
_DEFAULT_START_SECONDS = 300
_WATCH_SECONDS = 0.5
_RESTART_SECONDS = 5.0  # between tries to start what does not start any more
_DRAIN_POLL_SECONDS = 0.02
_GRACE_SECONDS = 5.0


@dataclass
class Instance:
    """One server of a variant, and its log."""

    variant: str
    server: ModelServer
    log: LogStream


class Fleet:
    """All servers of an endpoint for one configuration.

    Args:
        account: Whose it is.
        endpoint: The endpoint's name.
        config: The configuration's description.
        models: The descriptions of its models, by name.
    """

    def __init__(
        self, account: Account, endpoint: str, config: Mapping[str, Any], models: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self.config_name: str = config["EndpointConfigName"]
        self.variants: list[dict[str, Any]] = config["ProductionVariants"]
        self.models = models
        self._account, self._endpoint = account, endpoint
        self._folder = account.root / "endpoints" / f"{endpoint}-{uuid.uuid4().hex[:8]}"
        self._instances: list[Instance] = []
        self._closed = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True, name=f"watch-{endpoint}")

    def start(self) -> None:
        """Start every server; return when all answer.

        Raises:
            StartError: One did not; none is left running.
        """
        for variant in self.variants:
            self._instances += [self._new_instance(variant) for _ in range(variant.get("InitialInstanceCount", 1))]
        try:
            with ThreadPoolExecutor(max(len(self._instances), 1)) as pool:
                list(pool.map(self._start, self._instances))
        except BaseException:
            self.stop(0)
            raise
        self._watcher.start()

    def reserve(self, variant: str | None) -> Instance:
        """Return the server for a request: variants by weight, then the one with the least to do.

        Its `invoke` must be called then: until it is, the server is not stopped.

        Raises:
            AwsError: There is no such variant.
        """
        name = variant or self._weighted()
        candidates = [instance for instance in self._instances if instance.variant == name]
        if not candidates:
            code, message = "ValidationError", f"Variant {name} not found on endpoint {self._endpoint}"
            raise AwsError(code, message)
        alive = [instance for instance in candidates if instance.server.alive] or candidates
        least = min(instance.server.in_flight for instance in alive)
        # Among equals by chance: always the first would leave the others idle. Load needs no secrecy.
        chosen = random.choice([i for i in alive if i.server.in_flight == least])  # noqa: S311
        chosen.server.reserve()
        return chosen

    def stop(self, drain_seconds: float) -> None:
        """End every server, after its requests if they are done in time; return when all lines have arrived."""
        self._closed.set()
        deadline = time.monotonic() + drain_seconds
        while any(instance.server.in_flight for instance in self._instances) and time.monotonic() < deadline:
            time.sleep(_DRAIN_POLL_SECONDS)
        for instance in self._instances:
            instance.server.close()
        containers = [instance.server.container for instance in self._instances if instance.server.container]
        kill_at = time.monotonic() + _GRACE_SECONDS
        stop_all(containers, lambda: kill_at)
        for instance in self._instances:
            instance.log.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _weighted(self) -> str:
        weights = [variant.get("InitialVariantWeight", 1.0) for variant in self.variants]
        # Without any weight there is nothing to choose by.
        return str(random.choices(self.variants, weights if any(weights) else None)[0]["VariantName"])  # noqa: S311

    def _new_instance(self, variant: Mapping[str, Any]) -> Instance:
        name = str(variant["VariantName"])
        number = f"i-{uuid.uuid4().hex[:17]}"
        log = LogStream(self._account.client("logs"), f"{LOG_GROUP}/{self._endpoint}", f"{name}/{number}")
        folder: Path = self._folder / f"{name}-{number}"
        folder.mkdir(parents=True)
        return Instance(name, ModelServer(self._account, self.models[variant["ModelName"]], folder, log.add), log)

    def _start(self, instance: Instance) -> None:
        variant = next(item for item in self.variants if item["VariantName"] == instance.variant)
        instance.server.start(variant.get("ContainerStartupHealthCheckTimeoutInSeconds", _DEFAULT_START_SECONDS))

    def _watch(self) -> None:
        """Start anew what dies, as SageMaker replaces instances that fail their health check."""
        while not self._closed.wait(_WATCH_SECONDS):
            for instance in self._instances:
                if not instance.server.alive and not self._closed.is_set():
                    try:
                        self._start(instance)
                    except StartError as error:
                        instance.log.add(f"The container could not be started again: {error}")
                        self._closed.wait(_RESTART_SECONDS)

"""The servers of an endpoint, of one configuration: balanced, added, drained and removed, replaced when they die."""

import random
import shutil
import threading
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deployments.local_aws.account import Account
from deployments.local_aws.containers import stop_all
from deployments.local_aws.log_streams import LogStream
from deployments.local_aws.model_server import ModelServer, StartError
from deployments.local_aws.protocol import AwsError
from deployments.local_aws.records import invalid

LOG_GROUP = "/aws/sagemaker/Endpoints"
WATCH_SECONDS = 0.5
RESTART_SECONDS = 5.0  # between tries to start what does not start any more
_DRAIN_POLL_SECONDS = 0.02
_GRACE_SECONDS = 5.0
_JOIN_SECONDS = 10.0


@dataclass(eq=False)
class Instance:
    """One server of a variant, its log and its folder."""

    variant: str
    server: ModelServer
    log: LogStream
    folder: Path


class Fleet:
    """All servers of an endpoint for one configuration; safe to use from several threads.

    Args:
        account: Whose it is.
        endpoint: The endpoint's name.
        config: The configuration's description.
        models: The descriptions of its models, by name.
    """

    max_body_bytes = 25 * 1024 * 1024  # of a request
    _start_seconds = 300  # that a server may take, where its variant does not say
    _memory_mb: int | None = None  # that a server may use, where there is a limit

    def __init__(
        self, account: Account, endpoint: str, config: Mapping[str, Any], models: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self.config_name: str = config["EndpointConfigName"]
        self.variants: list[dict[str, Any]] = config["ProductionVariants"]
        self.weights = {v["VariantName"]: float(v.get("InitialVariantWeight", 1.0)) for v in self.variants}
        self._models = models
        self._account, self._endpoint = account, endpoint
        self._folder = account.root / "endpoints" / f"{endpoint}-{uuid.uuid4().hex[:8]}"
        self._instances: list[Instance] = []  # that answer
        self._starting: list[Instance] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._resolved = datetime.now(UTC)
        self._watcher = threading.Thread(target=self._watch, daemon=True, name=f"watch-{endpoint}")

    def start(self) -> None:
        """Start every server; return when all answer.

        Raises:
            StartError: One did not; none is left running.
        """
        try:
            self._start_first()
        except BaseException:
            self.stop(0)
            raise
        self._watcher.start()

    def scale(self, variant: str, count: int, drain_seconds: float) -> None:
        """Give a variant so many servers; return when new ones answer, or those that are too many have ended.

        Raises:
            StartError: One did not start; there are as many as before.
        """
        missing = count - self.count(variant)
        if missing > 0:
            self._add(self._new_instances(self._variant(variant), missing))
            return
        with self._lock:
            of_variant = [one for one in self._instances if one.variant == variant]
            leaving = sorted(of_variant, key=lambda one: one.server.in_flight)[: max(-missing, 0)]
            self._instances = [one for one in self._instances if one not in leaving]
        end(leaving, drain_seconds)

    def has(self, variant: str) -> bool:
        """Whether it has a variant of that name."""
        return variant in self.weights

    def count(self, variant: str | None = None) -> int:
        """Return how many servers answer, of a variant or of all."""
        return sum(variant in (None, one.variant) for one in self._instances)

    def shared_by(self, variant: str) -> int | None:
        """Return how many instances share a variant's requests; None where it has none."""
        return max(self.count(variant), 1)

    def properties(self, variant: str) -> dict[str, Any]:
        """Return what can be kept of a variant over an update, as a configuration says it."""
        return {"InitialInstanceCount": self.count(variant), "InitialVariantWeight": self.weights[variant]}

    def check_capacity(self, variant: str, instances: int) -> None:
        """Refuse a number of instances that a variant cannot have.

        Raises:
            AwsError: ValidationException.
        """
        if instances < 1:
            # To zero scale only endpoints with inference components, which are not here.
            message = f"DesiredInstanceCount of variant {variant} must be at least 1"
            raise invalid(message)

    def reserve(self, variant: str | None) -> Instance:
        """Return the server for a request: variants by weight, then the one with the least to do.

        It must be made ready, and its `invoke` be called, or it be released: until then it is not stopped.

        Raises:
            AwsError: There is no such variant.
        """
        name = variant or self._weighted()
        with self._lock:
            candidates = [instance for instance in self._instances if instance.variant == name]
            if not candidates:
                raise self._not_found(name)
            alive = [instance for instance in candidates if instance.server.alive] or candidates
            # Looked at once: requests that end meanwhile change it. Among equals by chance: always the first would
            # leave the others idle.
            loads = [(instance.server.in_flight, random.random()) for instance in alive]  # noqa: S311 - no secret
            chosen = alive[loads.index(min(loads))]
            chosen.server.reserve()
            return chosen

    def make_ready(self, _instance: Instance) -> float | None:
        """Return how many seconds a reserved server had to be started for; None for one that was there.

        Raises:
            StartError: It did not start; it is reserved no more.
        """
        return None

    def stop(self, drain_seconds: float) -> None:
        """End every server, after its requests if they are done in time; return when all lines have arrived."""
        self._closed.set()
        with self._lock:
            instances = [*self._instances, *self._starting]
        end(instances, drain_seconds)
        if self._watcher.is_alive():
            self._watcher.join(_JOIN_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)

    def described(self) -> list[dict[str, Any]]:
        """Return what DescribeEndpoint says of its variants, as they are now."""
        return [self._described(variant) for variant in self.variants]

    def _described(self, variant: Mapping[str, Any]) -> dict[str, Any]:
        name, image = variant["VariantName"], self._models[variant["ModelName"]]["PrimaryContainer"]["Image"]
        return {
            "VariantName": name,
            "DeployedImages": [{"SpecifiedImage": image, "ResolvedImage": image, "ResolutionTime": self._resolved}],
            "CurrentWeight": self.weights[name],
            "DesiredWeight": self.weights[name],
            **self._capacity(name),
        }

    def _capacity(self, variant: str) -> dict[str, Any]:
        return {"CurrentInstanceCount": self.count(variant), "DesiredInstanceCount": self.count(variant)}

    def _start_first(self) -> None:
        """Start the servers that there are from the beginning."""
        self._add([one for v in self.variants for one in self._new_instances(v, v.get("InitialInstanceCount", 1))])

    def _not_found(self, variant: str) -> AwsError:
        code, message = "ValidationError", f"Variant {variant} not found on endpoint {self._endpoint}"
        return AwsError(code, message)

    def _variant(self, name: str) -> dict[str, Any]:
        return next(variant for variant in self.variants if variant["VariantName"] == name)

    def _weighted(self) -> str:
        # Without any weight there is nothing to choose by.
        weights = list(self.weights.values()) if any(self.weights.values()) else None
        return str(random.choices(list(self.weights), weights)[0])  # noqa: S311

    def _new_instances(self, variant: Mapping[str, Any], count: int) -> list[Instance]:
        return [self._new_instance(variant) for _ in range(count)]

    def _new_instance(self, variant: Mapping[str, Any]) -> Instance:
        name = str(variant["VariantName"])
        number = f"i-{uuid.uuid4().hex[:17]}"
        log = LogStream(self._account.client("logs"), f"{LOG_GROUP}/{self._endpoint}", f"{name}/{number}")
        folder: Path = self._folder / f"{name}-{number}"
        folder.mkdir(parents=True)
        model = self._models[variant["ModelName"]]
        server = ModelServer(self._account, model, folder, log.add, memory_mb=self._memory_mb)
        return Instance(name, server, log, folder)

    def _add(self, instances: Sequence[Instance]) -> None:
        """Start servers; they get requests when all of them answer."""
        try:
            self._expect(instances)
            with ThreadPoolExecutor(max(len(instances), 1)) as pool:
                list(pool.map(self._start, instances))
        except BaseException:
            end(instances, 0)
            with self._lock:
                self._starting = [one for one in self._starting if one not in instances]
            raise
        with self._lock:  # at once: `stop` looks in both lists
            self._starting = [one for one in self._starting if one not in instances]
            self._instances = [*self._instances, *instances]

    def _expect(self, instances: Sequence[Instance]) -> None:
        with self._lock:
            if self._closed.is_set():  # `stop` has looked already, and would miss them
                msg = "The endpoint was deleted before the container was started"
                raise StartError(msg)
            self._starting += instances

    def _start(self, instance: Instance) -> None:
        variant = self._variant(instance.variant)
        instance.server.start(variant.get("ContainerStartupHealthCheckTimeoutInSeconds", self._start_seconds))

    def _watch(self) -> None:
        """Start anew what dies, as SageMaker replaces instances that fail their health check."""
        while not self._closed.wait(WATCH_SECONDS):
            for instance in self._instances:
                # One that was removed meanwhile does not start again: its server is closed.
                if not instance.server.alive and not self._closed.is_set() and instance in self._instances:
                    try:
                        self._start(instance)
                    except StartError as error:
                        instance.log.add(f"The container could not be started again: {error}")
                        self._closed.wait(RESTART_SECONDS)


def end(instances: Iterable[Instance], drain_seconds: float) -> None:
    """End servers that get no more requests, after those that they have if they are done in time."""
    instances = list(instances)
    deadline = time.monotonic() + drain_seconds
    while any(instance.server.in_flight for instance in instances) and time.monotonic() < deadline:
        time.sleep(_DRAIN_POLL_SECONDS)
    for instance in instances:
        instance.server.close()
    containers = [instance.server.container for instance in instances if instance.server.container]
    kill_at = time.monotonic() + _GRACE_SECONDS
    stop_all(containers, lambda: kill_at)
    for instance in instances:
        instance.log.close()
        shutil.rmtree(instance.folder, ignore_errors=True)

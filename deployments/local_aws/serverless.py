"""The servers of a serverless endpoint: started when a request comes, one request each, ended when nobody asks.

https://docs.aws.amazon.com/sagemaker/latest/dg/serverless-endpoints.html
"""

import logging
import shutil
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from deployments.local_aws.account import Account
from deployments.local_aws.clock import Clock
from deployments.local_aws.fleets import RESTART_SECONDS, WATCH_SECONDS, Fleet, Instance, end
from deployments.local_aws.model_server import StartError
from deployments.local_aws.protocol import AwsError
from deployments.local_aws.records import invalid

_IDLE_SECONDS = 600  # of AWS's time; AWS does not say how long it is

_log = logging.getLogger(__name__)


class ServerlessFleet(Fleet):
    """All servers of a serverless endpoint for one configuration, which has one variant.

    As many as are provisioned are kept. Others begin with the request that finds none idle, which waits for it: a cold
    start. They end when they were idle for long.
    """

    max_body_bytes = 4 * 1024 * 1024
    _start_seconds = 180

    def __init__(
        self, account: Account, endpoint: str, config: Mapping[str, Any], models: Mapping[str, Mapping[str, Any]]
    ) -> None:
        super().__init__(account, endpoint, config, models)
        self._config: dict[str, int] = self.variants[0]["ServerlessConfig"]
        self._memory_mb = self._config["MemorySizeInMB"]
        self._provisioned = self._config.get("ProvisionedConcurrency", 0)
        self._package = self._folder / "model"

    def shared_by(self, _variant: str) -> int | None:
        """Return None: what there is are no instances."""
        return None

    def properties(self, variant: str) -> dict[str, Any]:
        """Return what can be kept of a variant over an update, as a configuration says it."""
        return {"InitialVariantWeight": self.weights[variant]}

    def check_capacity(self, variant: str, _instances: int) -> None:
        """Refuse any number of instances.

        Raises:
            AwsError: ValidationException.
        """
        message = f"Variant {variant} is serverless: it has no instances, and no other variant to share requests with"
        raise invalid(message)

    def reserve(self, variant: str | None) -> Instance:
        """Return the server for a request: an idle one, or one that must be started first.

        Raises:
            AwsError: There is no such variant, or it has as many requests as it may have at once.
        """
        if variant is not None and not self.has(variant):
            raise self._not_found(variant)
        with self._lock:
            if sum(one.server.in_flight for one in self._instances) >= self._config["MaxConcurrency"]:
                raise self._throttled()
            idle = [one for one in self._instances if one.server.alive and not one.server.in_flight]
            if idle:
                chosen = max(idle, key=_idle_since)  # so that the others have their rest, and end
            else:
                chosen = self._new_instance(self.variants[0])
                self._instances = [*self._instances, chosen]
            chosen.server.reserve()
            return chosen

    def make_ready(self, instance: Instance) -> float | None:
        """Start a reserved server, if it is new; return how many seconds that took.

        Raises:
            StartError: It did not start; it is reserved no more.
        """
        if instance.server.container is not None:
            return None
        began = time.perf_counter()
        try:
            self._start(instance)
        except BaseException:
            instance.server.close()  # nobody reserves it again, and the watch takes it away
            instance.server.release()
            raise
        return time.perf_counter() - began

    def _capacity(self, _variant: str) -> dict[str, Any]:
        return {"CurrentServerlessConfig": dict(self._config), "DesiredServerlessConfig": dict(self._config)}

    def _start_first(self) -> None:
        """Start what is provisioned; if nothing is, one server that only shows that the model can be served."""
        self._add(self._new_instances(self.variants[0], max(self._provisioned, 1)))
        shutil.copytree(self._instances[0].server.package, self._package)
        self._end_idle(0)

    def _start(self, instance: Instance) -> None:
        # Cold starts wait in the gateway's threads: if they all waited for S3, none were left to answer for S3.
        if self._package.exists():
            shutil.copytree(self._package, instance.server.package)
        super()._start(instance)

    def _watch(self) -> None:
        """End what is idle for long, and start what is missing of the provisioned servers."""
        while not self._closed.wait(WATCH_SECONDS):
            self._end_idle(Clock.real_seconds(_IDLE_SECONDS))
            missing = self._provisioned - sum(one.server.alive for one in self._instances)
            if missing > 0:
                self._provide(missing)

    def _provide(self, count: int) -> None:
        try:
            self._add(self._new_instances(self.variants[0], count))
        except (StartError, OSError) as error:  # the latter while the folder is being removed
            if not self._closed.wait(RESTART_SECONDS):
                _log.warning("A provisioned server of %s could not be started: %s", self._endpoint, error)

    def _end_idle(self, idle_seconds: float) -> None:
        """End servers that died, and those idle for so long that are more than the provisioned ones."""
        before = time.monotonic() - idle_seconds
        with self._lock:
            free = [one for one in self._instances if not one.server.in_flight]
            dead = [one for one in free if not one.server.alive]
            idle = [one for one in free if one not in dead and one.server.idle_since <= before]
            surplus = max(len(self._instances) - len(dead) - self._provisioned, 0)
            leaving = [*dead, *sorted(idle, key=_idle_since)[:surplus]]
            self._instances = [one for one in self._instances if one not in leaving]
        end(leaving, 0)

    def _throttled(self) -> AwsError:
        most = self._config["MaxConcurrency"]
        code, message = "ThrottlingException", f"Rate exceeded: endpoint {self._endpoint} has MaxConcurrency {most}"
        return AwsError(code, message, HTTPStatus.TOO_MANY_REQUESTS)


def _idle_since(instance: Instance) -> float:
    return instance.server.idle_since

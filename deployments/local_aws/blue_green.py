"""A blue/green deployment: traffic shifts to the new fleet in steps, and back when an alarm goes off.

https://docs.aws.amazon.com/sagemaker/latest/dg/deployment-guardrails-blue-green.html
"""

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from deployments.local_aws import alarms
from deployments.local_aws.clock import Clock
from deployments.local_aws.fleets import Fleet
from deployments.local_aws.records import invalid
from deployments.local_aws.traffic import Traffic

_POLL_SECONDS = 0.02
_SIZES = {"CANARY": "CanarySize", "LINEAR": "LinearStepSize"}
_MOST_PERCENT = 50  # of the capacity in one step, the last one of a canary aside
_LEAST_LINEAR_PERCENT = 10
_ALL_AT_ONCE: Mapping[str, Any] = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}


class RollbackError(Exception):
    """The deployment must not go on; the text is the reason."""


class BlueGreenDeployment:
    """One deployment of a fleet.

    Args:
        config: The request's DeploymentConfig; none is all at once, without a baking period.
        traffic: The endpoint's.
        alarm_state: Returns the state of an alarm.
        stopping: Set when the local AWS ends.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        traffic: Traffic,
        alarm_state: Callable[[str], str | None],
        stopping: threading.Event,
    ) -> None:
        policy = config.get("BlueGreenUpdatePolicy", {})
        self._routing = policy.get("TrafficRoutingConfiguration", _ALL_AT_ONCE)
        self._termination_wait = policy.get("TerminationWaitInSeconds", 0)
        self._longest = policy.get("MaximumExecutionTimeoutInSeconds", math.inf)
        self._alarms = alarm_names(config)
        self._traffic, self._alarm_state, self._stopping = traffic, alarm_state, stopping
        self._began = time.monotonic()

    def shift(self, green: Fleet, entered: Callable[[str], None]) -> None:
        """Shift all traffic to a fleet that answers; the blue fleet is still there afterwards.

        Args:
            green: The new fleet.
            entered: Called with the status of its variants whenever that changes.

        Raises:
            RollbackError: An alarm went off, or it took too long: the traffic is to go back.
        """
        for share in _shares(self._routing, green.count()):
            entered("ActivatingTraffic")
            self._check()
            self._traffic.shift(green, share)
            entered("Baking")
            self._bake(self._routing["WaitIntervalInSeconds"])
        self._bake(self._termination_wait)

    def _bake(self, seconds: float) -> None:
        """Watch the alarms for so long."""
        until = time.monotonic() + Clock.real_seconds(seconds)
        while time.monotonic() < until:
            self._check()
            self._stopping.wait(min(_POLL_SECONDS, max(until - time.monotonic(), 0)))
        self._check()

    def _check(self) -> None:
        gone_off = [name for name in self._alarms if self._alarm_state(name) == alarms.ALARM]
        if gone_off:
            msg = f"The deployment was rolled back: in ALARM state: {', '.join(gone_off)}"
            raise RollbackError(msg)
        if time.monotonic() - self._began > Clock.real_seconds(self._longest):
            msg = f"The deployment was rolled back: it took more than {self._longest} s, its MaximumExecutionTimeout"
            raise RollbackError(msg)
        if self._stopping.is_set():
            msg = "The deployment was rolled back: the local AWS ends"
            raise RollbackError(msg)


def alarm_names(config: Mapping[str, Any]) -> list[str]:
    """Return the alarms of a DeploymentConfig."""
    return [alarm["AlarmName"] for alarm in config.get("AutoRollbackConfiguration", {}).get("Alarms", [])]


def check_deployment_config(config: Mapping[str, Any], instances: Sequence[int]) -> None:
    """Refuse a DeploymentConfig that AWS refuses.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_TrafficRoutingConfig.html

    Args:
        config: The request's.
        instances: How many each new variant has.

    Raises:
        AwsError: ValidationException.
    """
    policy = config.get("BlueGreenUpdatePolicy")
    if policy is None:
        return
    routing = policy["TrafficRoutingConfiguration"]
    for kind, member in _SIZES.items():
        if (member in routing) != (kind == routing["Type"]):
            message = f"{member} is for TrafficRoutingConfiguration.Type {kind} only, and needed there"
            raise invalid(message)
    if routing["Type"] in _SIZES:
        _check_size(routing["Type"], routing[_SIZES[routing["Type"]]], instances)
    waits = routing["WaitIntervalInSeconds"] + policy.get("TerminationWaitInSeconds", 0)
    if policy.get("MaximumExecutionTimeoutInSeconds", math.inf) <= waits:
        message = (
            "MaximumExecutionTimeoutInSeconds must be more than WaitIntervalInSeconds and TerminationWaitInSeconds "
            f"together, which are {waits}"
        )
        raise invalid(message)


def _check_size(kind: str, size: Mapping[str, Any], instances: Sequence[int]) -> None:
    least = _LEAST_LINEAR_PERCENT if kind == "LINEAR" else 0
    for count in instances:
        percent = size["Value"] if size["Type"] == "CAPACITY_PERCENT" else 100 * size["Value"] / count
        if not least <= percent <= _MOST_PERCENT:
            allowed = f"between {max(least, 1)} and {_MOST_PERCENT} percent of a variant's instances"
            message = f"{_SIZES[kind]} must be {allowed}: it is {percent:.0f} percent of {count}"
            raise invalid(message)


def _shares(routing: Mapping[str, Any], instances: int) -> Iterator[float]:
    """Yield the share of the traffic in each step, the last one is all of it."""
    if routing["Type"] in _SIZES:
        size = routing[_SIZES[routing["Type"]]]
        step = size["Value"] / (100 if size["Type"] == "CAPACITY_PERCENT" else max(instances, 1))
        steps = 1 if routing["Type"] == "CANARY" else math.ceil(1 / step - 1e-9) - 1
        yield from (step * (number + 1) for number in range(steps))
    yield 1.0

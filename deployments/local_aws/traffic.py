"""Which fleet a request of an endpoint goes to: all to one, or a share of them to another that is being tried."""

import random
import threading

from deployments.local_aws.fleets import Fleet, Instance


class Traffic:
    """An endpoint's requests, on their way to the servers of a fleet; safe to use from several threads."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet, self._green = fleet, fleet
        self._share = 0.0
        self._lock = threading.Lock()

    @property
    def fleet(self) -> Fleet:
        """The fleet in service; during a deployment the old one, which is called blue."""
        return self._fleet

    def reserve(self, variant: str | None) -> tuple[Fleet, Instance]:
        """Return a server for a request; it is not stopped before it has answered.

        Raises:
            AwsError: There is no such variant.
        """
        # A fleet that is out of here is drained and stopped: nobody may be on the way to it.
        with self._lock:
            is_green = random.random() < self._share  # noqa: S311 - load needs no secrecy
            fleet = self._green if is_green else self._fleet
            if variant is not None and not fleet.has(variant):
                fleet = self._fleet if is_green else self._green
            return fleet, fleet.reserve(variant)

    def shift(self, green: Fleet, share: float) -> None:
        """Send a share of the requests to a new fleet, which is called green."""
        with self._lock:
            self._green, self._share = green, share

    def back(self) -> None:
        """Send all requests to the blue fleet again."""
        self.shift(self._fleet, 0.0)

    def settle(self) -> Fleet:
        """Make the green fleet the one in service; return the blue one."""
        with self._lock:
            blue, self._fleet, self._share = self._fleet, self._green, 0.0
            return blue

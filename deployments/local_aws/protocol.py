"""What the gateway and the executors behind it say to each other: an operation, and the error it raises."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

Operation = Callable[[dict[str, Any]], dict[str, Any]]
"""An API operation: the request's members in, the result's members out, named as the service's model names them."""


class AwsError(Exception):
    """An answer of AWS that says no; the gateway writes it in the error format of the service's protocol.

    ``details`` are further members of the error's shape, such as ModelError's OriginalStatusCode.
    """

    def __init__(self, code: str, message: str, status: int = 400, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(code, message, status, details)
        self.code = code
        self.message = message
        self.status = status
        self.details = dict(details or {})

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class Executor(Protocol):
    """What really runs the operations of a service."""

    def operations(self) -> dict[str, Operation]:
        """Return its operations by their API names."""
        ...

    def stop(self) -> None:
        """End every process it started; called once, when the local AWS shuts down."""
        ...

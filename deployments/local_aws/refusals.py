"""Refuse what a request asks for and nobody here would do."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from deployments.local_aws.protocol import AwsError


@dataclass(frozen=True)
class Supported:
    """What of an operation's request is there: whatever is not named is refused, never pretended.

    A path names a member and all that is below it; lists are passed through. No path is the beginning of another.
    """

    honoured: Collection[str]
    """What happens as it is asked for."""
    recorded: Collection[str] = ()
    """What changes nothing on this machine, and can only be read back."""
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """What is there with some of its values only."""

    def check(self, operation: str, request: Mapping[str, Any], code: str) -> None:
        """Refuse a request that asks for something that would not happen.

        Raises:
            AwsError: Of the code; it names what is not implemented.
        """
        done = {*self.honoured, *self.recorded}
        for path, value in _members(request, "", done | self.only.keys()):
            if path in self.only and value not in self.only[path]:
                message = f"The local AWS does not implement {path}={value} of {operation}, only "
                raise AwsError(code, message + " or ".join(str(item) for item in self.only[path]))
            if path not in self.only and path not in done:
                message = f"The local AWS does not implement {path} of {operation}: leave it out"
                raise AwsError(code, message)


def _members(value: Any, path: str, known: set[str]) -> Iterator[tuple[str, Any]]:
    """Yield the known paths in a value with what is there, and the first of each that leads to none."""
    if path in known:
        yield path, value
    elif isinstance(value, list):
        for item in value:
            yield from _members(item, path, known)
    elif isinstance(value, Mapping) and any(longer.startswith(f"{path}.") or not path for longer in known):
        for name, member in value.items():
            yield from _members(member, f"{path}.{name}".lstrip("."), known)
    else:
        yield path, value

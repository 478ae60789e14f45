"""What Lambda keeps of its functions, found by name, ARN and qualifier."""

import random
import re
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import Any

from deployments.local_aws.function_versions import LATEST, Version
from deployments.local_aws.protocol import AwsError

_NAME = re.compile(
    r"(?:arn:[^:]+:lambda:(?P<region>[^:]+):)?(?:(?P<account>\d{12}):)?(?:function:)?"
    r"(?P<name>[a-zA-Z0-9-_]+)(?::(?P<qualifier>\$LATEST|[a-zA-Z0-9-_]+))?"
)
_PAGE = 50


@dataclass
class Alias:
    """A name that leads to a version, or to two by weight."""

    name: str
    number: str
    description: str = ""
    weights: dict[str, float] = field(default_factory=dict)
    revision_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def choose(self) -> str:
        """Return the version that the next event goes to."""
        drawn = random.random()  # noqa: S311 - traffic, not a secret
        for number, weight in self.weights.items():
            if drawn < weight:
                return number
            drawn -= weight
        return self.number

    def leads_to(self, number: str) -> bool:
        """Return whether events go to a version."""
        return number == self.number or number in self.weights


@dataclass
class Provisioned:
    """Warm environments that a qualifier is to have."""

    requested: int
    number: str  # of the version that has them
    modified: datetime
    failure: str = ""


@dataclass
class FunctionUrl:
    """A function's address."""

    id: str
    qualifier: str | None
    created: datetime
    modified: datetime


@dataclass
class Function:
    """A function with its versions."""

    latest: Version
    tags: dict[str, str]
    versions: dict[str, Version] = field(default_factory=dict)
    last_number: int = 0  # never used again, whatever is deleted
    aliases: dict[str, Alias] = field(default_factory=dict)
    reserved: int | None = None
    provisioned: dict[str, Provisioned] = field(default_factory=dict)
    urls: dict[str | None, FunctionUrl] = field(default_factory=dict)
    permissions: dict[str | None, dict[str, dict[str, Any]]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its name."""
        return self.latest.name

    @property
    def arn(self) -> str:
        """Its ARN, without qualifier."""
        return self.latest.arn

    def qualified_arn(self, qualifier: str | None) -> str:
        """Return its ARN with a qualifier, if there is one."""
        return f"{self.arn}:{qualifier}" if qualifier else self.arn

    def version(self, qualifier: str | None) -> Version:
        """Return the version that a qualifier names, for one event.

        Raises:
            AwsError: There is no such version or alias.
        """
        if qualifier in self.aliases:
            qualifier = self.aliases[qualifier].choose()
        if qualifier in (None, LATEST):
            return self.latest
        if qualifier not in self.versions:
            msg = f"Function not found: {self.qualified_arn(qualifier)}"
            raise not_found(msg)
        return self.versions[str(qualifier)]

    def alias(self, name: str) -> Alias:
        """Return an alias.

        Raises:
            AwsError: There is none of that name.
        """
        if name not in self.aliases:
            msg = f"Cannot find alias arn: {self.qualified_arn(name)}"
            raise not_found(msg)
        return self.aliases[name]


class FunctionStore:
    """The functions of an account in a region; whoever reads or changes one holds ``lock``."""

    def __init__(self, account_id: str, region: str) -> None:
        self._account_id, self._region = account_id, region
        self._functions: dict[str, Function] = {}
        self.lock = threading.RLock()

    def arn(self, name: str) -> str:
        """Return the ARN of a function of that name."""
        return f"arn:aws:lambda:{self._region}:{self._account_id}:function:{name}"

    def add(self, function: Function) -> None:
        """Keep a new one.

        Raises:
            AwsError: ResourceConflictException, when the name is taken.
        """
        if function.name in self._functions:
            msg = f"Function already exist: {function.name}"
            raise conflict(msg)
        self._functions[function.name] = function

    def require_free(self, name: str) -> None:
        """Return if no function has the name.

        Raises:
            AwsError: ResourceConflictException.
        """
        if name in self._functions:
            msg = f"Function already exist: {name}"
            raise conflict(msg)

    def remove(self, name: str) -> None:
        """Forget one."""
        del self._functions[name]

    def all(self) -> list[Function]:
        """Return every function."""
        return list(self._functions.values())

    def find(self, request: Mapping[str, Any]) -> tuple[Function, str | None]:
        """Return the function that a request names, and the qualifier in the name or beside it.

        Raises:
            AwsError: There is none, or two qualifiers contradict.
        """
        name, qualifier = self.name_in(request["FunctionName"])
        given = request.get("Qualifier") or None
        if qualifier and given and qualifier != given:
            message = "The derived qualifier from the function name does not match the specified qualifier."
            raise invalid(message)
        if name not in self._functions:
            msg = f"Function not found: {self.arn(name)}{f':{q}' if (q := qualifier or given) else ''}"
            raise not_found(msg)
        return self._functions[name], qualifier or given

    def find_unqualified(self, request: Mapping[str, Any]) -> Function:
        """Return the function that a request names, of which only $LATEST can be meant.

        Raises:
            AwsError: There is none, or a version of it is named.
        """
        function, qualifier = self.find(request)
        if qualifier not in (None, LATEST):
            message = f"The operation is on the function and not on its version or alias {qualifier}"
            raise invalid(message)
        return function

    def name_in(self, text: str) -> tuple[str, str | None]:
        """Return the function's name and the qualifier in a name, a partial ARN or an ARN.

        Raises:
            AwsError: It is of another account or region.
        """
        found = _NAME.fullmatch(text)
        if found is None:
            message = f"{text} is no function's name or ARN"
            raise invalid(message)
        if found["region"] not in (None, self._region) or found["account"] not in (None, self._account_id):
            msg = f"Function not found: {text}"
            raise not_found(msg)
        return found["name"], found["qualifier"]


def page(request: Mapping[str, Any], key: str, found: Sequence[Any]) -> dict[str, Any]:
    """Return the page of what was found that a request asks for.

    Raises:
        AwsError: The marker is not one that was given.
    """
    marker = request.get("Marker") or "0"
    if not marker.isdecimal():
        message = "Invalid Marker"
        raise invalid(message)
    start = int(marker)
    end = start + request.get("MaxItems", _PAGE)
    return {key: list(found[start:end])} | ({"NextMarker": str(end)} if end < len(found) else {})


def invalid(message: str) -> AwsError:
    """Return Lambda's answer to a value that will not do."""
    return AwsError("InvalidParameterValueException", message, HTTPStatus.BAD_REQUEST, {"Type": "User"})


def not_found(message: str) -> AwsError:
    """Return Lambda's answer to what does not exist."""
    return AwsError("ResourceNotFoundException", message, HTTPStatus.NOT_FOUND, {"Type": "User"})


def conflict(message: str) -> AwsError:
    """Return Lambda's answer to what cannot be now."""
    return AwsError("ResourceConflictException", message, HTTPStatus.CONFLICT, {"Type": "User"})


def check_revision(request: Mapping[str, Any], revision_id: str) -> None:
    """Return if the request names no revision, or the one that there is.

    Raises:
        AwsError: PreconditionFailedException.
    """
    if request.get("RevisionId", revision_id) != revision_id:
        code, message = (
            "PreconditionFailedException",
            (
                "The RevisionId provided does not match the latest RevisionId. Call the GetFunction/GetAlias API to "
                "retrieve the latest RevisionId"
            ),
        )
        raise AwsError(code, message, HTTPStatus.PRECONDITION_FAILED, {"Type": "User"})

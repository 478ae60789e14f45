"""Hold a request against its shape in the service's model, and answer as AWS does where it fails.

botocore's ParamValidator checks neither enums nor patterns, and a client other than botocore checks nothing at all.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

from deployments.local_aws.protocol import AwsError

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "character": (str,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "boolean": (bool,),
    "timestamp": (datetime,),
    "blob": (bytes, bytearray),
    "list": (list, tuple),
    "map": (dict,),
    "structure": (dict,),
}
_SHOWN_LENGTH = 200  # of a value in a message
_SHOWN_CHOICES = 400  # of an enumeration: EC2 has more than a thousand instance types


def validate(request: dict[str, Any], shape: StructureShape | None, code: str = "ValidationException") -> None:
    """Return if the request satisfies every constraint of its shape.

    Raises:
        AwsError: Of the code, with every violation in AWS's own words.
    """
    if shape is None:
        return
    violations = list(_violations(request, shape, ""))
    if violations:
        plural = "" if len(violations) == 1 else "s"
        raise AwsError(code, f"{len(violations)} validation error{plural} detected: {'; '.join(violations)}")


def unknown_members(value: Any, shape: Shape | None, path: str = "") -> Iterator[str]:
    """Yield the paths in a JSON body that the model does not know: a parser would drop them without a word."""
    if isinstance(shape, StructureShape) and isinstance(value, dict) and not shape.is_document_type:
        names = {member.serialization.get("name", name): member for name, member in shape.members.items()}
        for name, member_value in value.items():
            if name in names:
                yield from unknown_members(member_value, names[name], f"{path}{name}.")
            elif not (getattr(shape, "is_tagged_union", False) and name == "__type"):
                yield f"{path}{name}"
    elif isinstance(shape, ListShape) and isinstance(value, list):
        for number, item in enumerate(value, 1):
            yield from unknown_members(item, shape.member, f"{path}{number}.")
    elif isinstance(shape, MapShape) and isinstance(value, dict):
        for key, item in value.items():
            yield from unknown_members(item, shape.value, f"{path}{key}.")


def _violations(value: Any, shape: Shape, path: str) -> Iterator[str]:
    if not _has_type(value, shape):
        yield _violation(value, path, f"Member must be a {shape.type_name}")
    elif isinstance(shape, StructureShape):
        yield from _structure_violations(value, shape, path)
    elif isinstance(shape, ListShape):
        yield from _size_violations(value, shape, path)
        for number, item in enumerate(value, 1):
            yield from _violations(item, shape.member, f"{path}.{number}.member")
    elif isinstance(shape, MapShape):
        yield from _size_violations(value, shape, path)
        for key, item in value.items():
            yield from _violations(key, shape.key, f"{path}.key")
            yield from _violations(item, shape.value, f"{path}.{key}.member")
    else:
        yield from _scalar_violations(value, shape, path)


def _has_type(value: Any, shape: Shape) -> bool:
    if getattr(shape, "is_document_type", False):
        return True
    if isinstance(value, bool) and shape.type_name != "boolean":
        return False
    return isinstance(value, _TYPES.get(shape.type_name, (object,)))


def _structure_violations(value: dict[str, Any], shape: StructureShape, path: str) -> Iterator[str]:
    if shape.is_document_type:
        return
    for name in shape.required_members:
        if value.get(name) is None:
            yield _violation(None, _joined(path, name), "Member must not be null")
    if getattr(shape, "is_tagged_union", False) and sum(member is not None for member in value.values()) != 1:
        yield _violation(value, path, f"Exactly one member of [{', '.join(shape.members)}] must be set")
    for name, member in shape.members.items():
        # A payload's size is the service's own limit, which the models do not follow: InvokeEndpoint's says 6 MB.
        if value.get(name) is not None and shape.serialization.get("payload") != name:
            yield from _violations(value[name], member, _joined(path, name))


def _size_violations(value: Any, shape: Shape, path: str) -> Iterator[str]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and len(value) < low:
        yield _violation(value, path, f"Member must have length greater than or equal to {low}")
    if high is not None and len(value) > high:
        yield _violation(value, path, f"Member must have length less than or equal to {high}")


def _scalar_violations(value: Any, shape: Shape, path: str) -> Iterator[str]:
    if isinstance(value, str | bytes):
        wrong_size = list(_size_violations(value, shape, path))
        yield from wrong_size
        if isinstance(value, str) and not wrong_size:
            yield from _string_violations(value, shape, path)
    elif isinstance(value, int | float):
        low, high = shape.metadata.get("min"), shape.metadata.get("max")
        if low is not None and value < low:
            yield _violation(value, path, f"Member must have value greater than or equal to {low}")
        if high is not None and value > high:
            yield _violation(value, path, f"Member must have value less than or equal to {high}")


def _string_violations(value: str, shape: Shape, path: str) -> Iterator[str]:
    enum = shape.metadata.get("enum")
    if enum and value not in enum:
        yield _violation(value, path, f"Member must satisfy enum value set: [{', '.join(enum[:_SHOWN_CHOICES])}]")
    source = shape.metadata.get("pattern")
    pattern = _compiled(source) if source else None
    if pattern is not None and not pattern.fullmatch(value):
        yield _violation(value, path, f"Member must satisfy regular expression pattern: {source}")


@lru_cache(maxsize=1024)
def _compiled(source: str) -> re.Pattern[str] | None:
    """Return the pattern, or None where Java's syntax has no equal in Python: named classes, pairs, && in a set."""
    try:
        return None if "&&" in source else re.compile(source)
    except re.error:
        return None


def _violation(value: Any, path: str, constraint: str) -> str:
    text = "null" if value is None else f"'{value}'"
    if len(text) > _SHOWN_LENGTH:
        text = f"{text[:_SHOWN_LENGTH]}…'"
    return f"Value {text} at '{path or 'request'}' failed to satisfy constraint: {constraint}"


def _joined(path: str, name: str) -> str:
    """Return the path of a member as AWS writes it: trainingJobName, resourceConfig.instanceCount."""
    member = name[:1].lower() + name[1:]
    return f"{path}.{member}" if path else member

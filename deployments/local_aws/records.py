"""What SageMaker keeps by name: resources with a description, found, listed and deleted in its own words."""

import threading
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from deployments.local_aws.protocol import AwsError

Record = dict[str, Any]
_PAGE = 10  # SageMaker's own, where MaxResults does not say otherwise


class Records:
    """Resources of one kind, by name; safe to use from several threads."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}
        self.lock = threading.RLock()

    def add(self, name: str, record: Record, clash: AwsError) -> None:
        """Keep a new one.

        Raises:
            AwsError: The clash, when the name is taken.
        """
        with self.lock:
            if name in self._records:
                raise clash
            self._records[name] = record

    def get(self, name: str, missing: AwsError) -> Record:
        """Return the one of that name, itself and not a copy.

        Raises:
            AwsError: It is missing.
        """
        with self.lock:
            if name not in self._records:
                raise missing
            return self._records[name]

    def remove(self, name: str, missing: AwsError) -> Record:
        """Forget the one of that name, and return it.

        Raises:
            AwsError: It is missing.
        """
        with self.lock:
            self.get(name, missing)
            return self._records.pop(name)

    def __iter__(self) -> Iterator[Record]:
        with self.lock:
            return iter(list(self._records.values()))


def listing(
    records: Records, request: Record, *, key: str, prefix: str, members: Sequence[str], status: str | None = None
) -> Record:
    """Answer a List operation: filtered, sorted, a page at a time.

    Args:
        records: What there is.
        request: The operation's request.
        key: Member of the answer that carries the page.
        prefix: As in <prefix>Name.
        members: What of a record is in the page, where it has it.
        status: Member that carries the status, if the kind has one.
    """
    found = [record for record in records if _matches(record, request, f"{prefix}Name", status)]
    by = {"Name": f"{prefix}Name", "Status": status}.get(request.get("SortBy", ""), "CreationTime")
    found.sort(key=lambda record: record[by or "CreationTime"])
    # SageMaker lists the newest first, except where the request says otherwise.
    if request.get("SortOrder", "Descending") == "Descending":
        found.reverse()
    return page([{member: record[member] for member in members if member in record} for record in found], request, key)


def page(found: Sequence[Record], request: Record, key: str) -> Record:
    """Answer with the page of what was found that the request asks for."""
    start = _offset(request.get("NextToken"))
    end = start + request.get("MaxResults", _PAGE)
    return {key: list(found[start:end])} | ({"NextToken": str(end)} if end < len(found) else {})


def _matches(record: Record, request: Record, name_field: str, status: str | None) -> bool:
    created: datetime = record["CreationTime"]
    changed: datetime = record.get("LastModifiedTime", created)
    return (
        request.get("NameContains", "").lower() in record[name_field].lower()
        and ("StatusEquals" not in request or status is None or record[status] == request["StatusEquals"])
        and request.get("CreationTimeAfter", created) <= created
        and request.get("CreationTimeBefore", created) >= created
        and request.get("LastModifiedTimeAfter", changed) <= changed
        and request.get("LastModifiedTimeBefore", changed) >= changed
    )


def _offset(token: str | None) -> int:
    if token is None:
        return 0
    if not token.isdigit():
        code, message = "ValidationException", "NextToken is not one that this operation gave"
        raise AwsError(code, message)
    return int(token)


def invalid(message: str) -> AwsError:
    """Return SageMaker's answer to a request that it understands and does not accept."""
    return AwsError("ValidationException", message)

"""Buckets and objects, as the console shows them. No object is ever served as something that a browser would run."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from deployments.local_aws.console.pages import HEADERS, Clients, Page, Query
from deployments.local_aws.console.pictures import picture_type
from deployments.local_aws.wire import Response

_PAGE_SIZE = 100
_MOST_TEXT_BYTES = 64 * 1024
_CHUNK_BYTES = 1024 * 1024
# Controls that no text has: whatever else an object may be, it is nothing to read.
_BINARY = frozenset(range(32)) - frozenset(b"\t\n\r\f\x1b")


def buckets(client: Clients, _query: Query) -> Page:
    """Return the buckets."""
    return Page("buckets.html", {"buckets": all_buckets(client)})


def all_buckets(client: Clients) -> Sequence[Mapping[str, Any]]:
    """Return every bucket, the newest first."""
    found = client("s3").list_buckets()["Buckets"]
    # Dates are in whole seconds; those of one second are listed as they were made.
    return sorted(found, key=lambda one: one["CreationDate"])[::-1]


def bucket(client: Clients, query: Query, name: str) -> Page:
    """Return a page of the objects and the folders under a prefix."""
    prefix = query.get("prefix", "")
    asked = {"ContinuationToken": query["page"]} if "page" in query else {}
    answer = client("s3").list_objects_v2(Bucket=name, Prefix=prefix, Delimiter="/", MaxKeys=_PAGE_SIZE, **asked)
    folders = [one["Prefix"] for one in answer.get("CommonPrefixes", [])]
    values = {
        "bucket": name,
        "prefix": prefix,
        "trail": _trail(prefix),
        "folders": folders,
        "objects": answer.get("Contents", []),
        "next": answer.get("NextContinuationToken"),
    }
    return Page("bucket.html", values)


def object_page(client: Clients, query: Query, name: str) -> Page:
    """Return one object: what is known of it, and what is in it where that is a small text or a picture."""
    key, s3 = query.get("key", ""), client("s3")
    head = s3.head_object(Bucket=name, Key=key)
    beginning = _beginning(s3, name, key, head["ContentLength"])
    values = {
        "bucket": name,
        "key": key,
        "trail": _trail(key.rpartition("/")[0] + "/" if "/" in key else ""),
        "object": head,
        "is_picture": picture_type(beginning) is not None,
        "text": _text(beginning, head["ContentLength"]),
        "is_cut": head["ContentLength"] > len(beginning),
    }
    return Page("object.html", values)


def download(client: Clients, query: Query, name: str) -> Response:
    """Return an object as a file to save, whatever it says it is."""
    key = query.get("key", "")
    found = client("s3").get_object(Bucket=name, Key=key)
    filename = quote(key.rstrip("/").rpartition("/")[2] or "object", safe="")
    disposition = ("Content-Disposition", f"attachment; filename*=UTF-8''{filename}")
    return _served(found, "application/octet-stream", disposition)


def picture(client: Clients, query: Query, name: str) -> Response:
    """Return an object that is a PNG or a JPEG by its first bytes; anything else as a file to save."""
    key, s3 = query.get("key", ""), client("s3")
    kind = picture_type(_beginning(s3, name, key, s3.head_object(Bucket=name, Key=key)["ContentLength"]))
    if kind is None:
        return download(client, query, name)
    return _served(s3.get_object(Bucket=name, Key=key), kind, ("Content-Disposition", "inline"))


def _served(found: Mapping[str, Any], kind: str, *headers: tuple[str, str]) -> Response:
    described = [("Content-Type", kind), ("Content-Length", str(found["ContentLength"])), *headers]
    return Response(200, [*described, *HEADERS], found["Body"].iter_chunks(_CHUNK_BYTES))


def _beginning(s3: Any, bucket: str, key: str, length: int) -> bytes:
    if length == 0:  # no range of it exists
        return b""
    answer = s3.get_object(Bucket=bucket, Key=key, Range=f"bytes=0-{min(length, _MOST_TEXT_BYTES) - 1}")
    body: bytes = answer["Body"].read()
    return body


def _text(beginning: bytes, length: int) -> str | None:
    """Return what can be read of an object; JSON that is there as a whole is laid out."""
    if _BINARY.intersection(beginning):
        return None
    # A character may be cut in two at the end.
    text = beginning.decode("utf-8", "replace" if length == len(beginning) else "ignore")
    if "\ufffd" in text:
        return None
    if length == len(beginning) and text.lstrip()[:1] in ("{", "["):
        with suppress(ValueError, RecursionError):
            return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    return text


def _trail(prefix: str) -> list[tuple[str, str]]:
    """Return each folder on the way to a prefix: its name and its own prefix."""
    parts = prefix.split("/")[:-1]
    return [(part or "(no name)", "/".join(parts[: depth + 1]) + "/") for depth, part in enumerate(parts)]

"""What a view hands over, and the HTML that becomes of it; with headers that keep a browser from running anything else.

The templates are in templates/; everything put into them is escaped.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from deployments.local_aws.wire import Response

Clients = Callable[[str], Any]
"""Returns the account's client of a service, by boto3's name."""
Query = Mapping[str, str]

FOLDER = Path(__file__).parent / "templates"
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' blob:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = (
    ("Content-Security-Policy", _POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    # Not no-referrer: the Origin of a form would be null then.
    ("Referrer-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)
_TONES = {
    "busy": (
        *("Starting", "Downloading", "Training", "Uploading", "InProgress", "Stopping"),
        *("Creating", "Updating", "Deleting", "Pending", "Delayed", "Cancelling"),
        *("pending", "running", "stopping", "shutting-down"),
    ),
    "good": ("Completed", "InService", "Success", "Active", "Successful"),
    "bad": ("Failed", "TimedOut", "RollingBack", "OutOfService", "DeliveryTimedOut", "MaxRuntimeExceeded"),
}
_KILO = 1024
_MINUTE, _HOUR = 60, 3600


@dataclass(frozen=True)
class Page:
    """What a view has found, and the template that shows it."""

    template: str
    values: Mapping[str, Any]
    status: int = 200


class Pages:
    """Makes HTML of pages.

    Args:
        url: Returns the path of a view, by its name and what it takes.
        form_word: What every form carries.
    """

    def __init__(self, url: Callable[..., str], form_word: str) -> None:
        self._templates = Environment(
            loader=FileSystemLoader(FOLDER),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {"when": when, "size": size, "number": number, "pretty": pretty, "tone": tone}
        self._templates.globals |= {"url": url, "lasting": lasting, "form_word": form_word}
        self._templates.globals["parts"] = self._templates.get_template("parts.html").module

    def render(self, page: Page, part: str | None = None) -> str:
        """Return the HTML of a page, or of one of its parts if it has such a one."""
        template = self._templates.get_template(page.template)
        block = template.blocks.get(part or "")
        if block is None:
            return template.render(page.values)
        return "".join(block(template.new_context(dict(page.values))))


def html(text: str, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> Response:
    """Return an answer with HTML; its ETag lets a page that asks again see that nothing has changed."""
    body = text.encode("utf-8", "replace")
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    return Response(status, [("Content-Type", "text/html; charset=utf-8"), ("ETag", tag), *HEADERS, *headers], [body])


def when(value: datetime | None) -> str:
    """Return a time as the clock of this machine shows it, which is that of who looks."""
    return "" if value is None else value.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def lasting(start: datetime | None, end: datetime | None = None) -> str:
    """Return how long something takes, or has taken."""
    if start is None:
        return ""
    seconds = max(int(((end or datetime.now(UTC)) - start).total_seconds()), 0)
    if seconds < _MINUTE:
        return f"{seconds} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE} min {seconds % _MINUTE} s"
    return f"{seconds // _HOUR} h {seconds % _HOUR // _MINUTE} min"


def size(count: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("B", "KB", "MB"):
        if count < _KILO:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"  # noqa: PLR2004 - two digits
        count /= _KILO
    return f"{count:.1f} GB"


def number(value: float) -> str:
    """Return a measured number with as many digits as anyone reads."""
    return f"{value:.4g}"


def pretty(value: Any) -> str:
    """Return an answer of an API as JSON to read, without what belongs to its transport."""
    if isinstance(value, Mapping):
        value = {name: item for name, item in value.items() if name != "ResponseMetadata"}
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def tone(status: str) -> str:
    """Return which colour a status is shown in: busy, good, bad or off."""
    return next((name for name, statuses in _TONES.items() if status in statuses), "off")

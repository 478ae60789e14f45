"""A Lambda function's versions: what is fixed when one is made, and how the API describes it."""

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LATEST = "$LATEST"
DEFAULT_TIMEOUT_SECONDS = 3
DEFAULT_MEMORY_MB = 128
_TEMPORARY_STORAGE_MB = 512


@dataclass(frozen=True)
class Code:
    """A deployment package, unpacked."""

    sha256: str  # in base64, as the API tells it
    size: int
    folder: Path


@dataclass(frozen=True)
class Version:
    """$LATEST as it is now, or a published version. Never changed: whatever changes makes another one.

    ``settings`` are the request's members that decide how it runs.
    """

    name: str
    number: str
    arn: str  # of the function, without qualifier
    settings: Mapping[str, Any]
    code: Code
    settles_at: float
    """When it is Active, or its update done, by the monotonic clock."""
    is_new: bool = True
    revision_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    modified: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def role(self) -> str:
        """The ARN of its execution role."""
        return str(self.settings["Role"])

    @property
    def handler(self) -> str:
        """The module and the function in it."""
        return str(self.settings["Handler"])

    @property
    def runtime(self) -> str:
        """The runtime that it asks for; it gets this machine's Python."""
        return str(self.settings["Runtime"])

    @property
    def timeout_seconds(self) -> float:
        """How long one event may take."""
        return float(self.settings.get("Timeout", DEFAULT_TIMEOUT_SECONDS))

    @property
    def memory_mb(self) -> int:
        """How much memory its process may have."""
        return int(self.settings.get("MemorySize", DEFAULT_MEMORY_MB))

    @property
    def variables(self) -> dict[str, str]:
        """Its own environment variables."""
        return dict(self.settings.get("Environment", {}).get("Variables", {}))

    @property
    def log_group(self) -> str:
        """The log group that its environments write to."""
        return str(self.settings.get("LoggingConfig", {}).get("LogGroup") or f"/aws/lambda/{self.name}")

    @property
    def settled(self) -> bool:
        """Whether it is Active and no update is in progress."""
        return time.monotonic() >= self.settles_at

    @property
    def content(self) -> tuple[str, dict[str, Any]]:
        """What decides whether a publication would be another version."""
        return self.code.sha256, {name: value for name, value in self.settings.items() if name != "Description"}

    def describe(self) -> dict[str, Any]:
        """Return it as FunctionConfiguration.

        https://docs.aws.amazon.com/lambda/latest/api/API_FunctionConfiguration.html
        """
        settings = self.settings
        described = {
            "FunctionName": self.name,
            "FunctionArn": self.arn if self.number == LATEST else f"{self.arn}:{self.number}",
            "Runtime": self.runtime,
            "Role": self.role,
            "Handler": self.handler,
            "CodeSize": self.code.size,
            "CodeSha256": self.code.sha256,
            "Description": settings.get("Description", ""),
            "Timeout": int(self.timeout_seconds),
            "MemorySize": self.memory_mb,
            "LastModified": f"{self.modified:%Y-%m-%dT%H:%M:%S}.{self.modified.microsecond // 1000:03d}+0000",
            "Version": self.number,
            "TracingConfig": {"Mode": "PassThrough"},
            "RevisionId": self.revision_id,
            "PackageType": "Zip",
            "Architectures": settings.get("Architectures", ["x86_64"]),
            "EphemeralStorage": {"Size": _TEMPORARY_STORAGE_MB},
            "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
            "LoggingConfig": {"LogFormat": "Text", "LogGroup": self.log_group},
            **self._state(),
        }
        if "Environment" in settings:
            described["Environment"] = {"Variables": self.variables}
        return described

    def _state(self) -> dict[str, str]:
        if self.settled:
            return {"State": "Active", "LastUpdateStatus": "Successful"}
        if self.is_new:
            reason = {"StateReason": "The function is being created.", "StateReasonCode": "Creating"}
            return {"State": "Pending", "LastUpdateStatus": "InProgress", **reason}
        return {"State": "Active", "LastUpdateStatus": "InProgress"}

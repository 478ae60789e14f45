"""What can go wrong, as types that carry the facts.

    FlowsError                    anything this project says no with: one sentence, what to do
    ├── SettingsError             no credentials, no region, no foundation stack
    ├── DatasetError              the pictures are not what a training needs
    ├── RequestRefusedError       AWS refused a request; asking again would not help
    ├── IdentityError             the name is taken by something that is not ours
    ├── SettingsDroppedError      AWS accepted a request and kept only part of it
    ├── CapacityError             AWS has no machine of any of the types that were asked for
    ├── InvocationError           the endpoint did not answer with a prediction
    ├── DriftError                the endpoint is worse, or slower, than it was
    ├── RunCancelledError         somebody has cancelled the flow run
    └── ResourceError             something we started did not come to a good end
        ├── JobFailedError        Failed, with AWS's reason and the last log lines
        ├── JobStoppedError       Stopped by somebody, or by its own time limit
        ├── InstanceLostError     the machine went away under the work
        ├── RolledBackError       an endpoint went back to its old model
        └── DeadlineError         still not there when our patience ended

Every argument goes to `super().__init__`, so that the exceptions survive pickling between processes.
"""

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
)

_LOG_LINES_SHOWN = 15


class FlowsError(Exception):
    """Base of every error this project raises on purpose; its text is meant for the user."""


class SettingsError(FlowsError):
    """Something about the environment is missing; nothing has been created yet."""


class DatasetError(FlowsError):
    """The dataset cannot be used as it is; nothing has been uploaded."""


class RequestRefusedError(FlowsError):
    """AWS refused a request, and would refuse it again."""


class IdentityError(FlowsError):
    """A name of ours belongs to something with another content."""


class SettingsDroppedError(FlowsError):
    """AWS accepted a request and silently kept only part of it."""


class CapacityError(FlowsError):
    """AWS has no capacity for any of the types that were asked for; nothing runs, nothing bills.

    Args:
        tried: The types, as a person reads them.
    """

    def __init__(self, tried: tuple[str, ...]) -> None:
        super().__init__(tried)
        self.tried = tried

    def __str__(self) -> str:
        """Say what is not to be had, and what to do."""
        return (
            f"AWS has no capacity for {', '.join(self.tried)}: try later or in another region, or name other types in "
            "compute.fallbacks"
        )


class InvocationError(FlowsError):
    """The endpoint answered, but not with a prediction."""


class DriftError(FlowsError):
    """An endpoint is not any more what it was when it was deployed.

    Args:
        endpoint: Its name.
        drift: What it is like now, and was then.
    """

    def __init__(self, endpoint: str, drift: str) -> None:
        super().__init__(endpoint, drift)
        self.endpoint, self.drift = endpoint, drift

    def __str__(self) -> str:
        """Say what has changed, and what to do."""
        return f"The endpoint {self.endpoint} has drifted: {self.drift}. Look into its pictures, or train again"


class RunCancelledError(FlowsError):
    """Somebody has cancelled the flow run; nobody waits for what it had started.

    Args:
        flow_run: The name of the run that was cancelled.
    """

    def __init__(self, flow_run: str) -> None:
        super().__init__(flow_run)
        self.flow_run = flow_run

    def __str__(self) -> str:
        """Say whose end it is, and what becomes of what it did."""
        return f"The flow run {self.flow_run} was cancelled; what it had started is being stopped"


class ResourceError(FlowsError):
    """Something that was started did not come to a good end.

    Args:
        kind: What it is, "training job" or "endpoint".
        name: Its name at AWS.
        status: The status it ended with.
        reason: AWS's own reason, empty when it gives none.
        log_tail: The last lines it wrote.
    """

    def __init__(self, kind: str, name: str, status: str, reason: str = "", log_tail: tuple[str, ...] = ()) -> None:
        super().__init__(kind, name, status, reason, log_tail)
        self.kind, self.name, self.status, self.reason, self.log_tail = kind, name, status, reason, log_tail

    def __str__(self) -> str:
        """Say what happened to whom, AWS's reason, and the last lines that it wrote."""
        sentence = f"The {self.kind} {self.name} {self.what_happened()}"
        if self.reason:
            sentence += f": {self.reason}"
        lines = self.log_tail[-_LOG_LINES_SHOWN:]
        return sentence if not lines else "\n".join([f"{sentence}\nIts last lines were:", *(f"  {x}" for x in lines)])

    def what_happened(self) -> str:
        """Return the predicate of the sentence."""
        return f"ended as {self.status}"


class JobFailedError(ResourceError):
    """It failed."""

    def what_happened(self) -> str:
        """Return the predicate of the sentence."""
        return "failed"


class JobStoppedError(ResourceError):
    """It was stopped before it was done: by a person, or by its own time limit (MaxRuntimeExceeded)."""

    def what_happened(self) -> str:
        """Return the predicate of the sentence."""
        if self.status == "MaxRuntimeExceeded":
            return "ran out of its time limit and was stopped; raise max_runtime_seconds or ask for less"
        return "was stopped before it was done"


class InstanceLostError(ResourceError):
    """The instance went away under the work: reclaimed spot capacity, or somebody ended it."""

    def what_happened(self) -> str:
        """Return the predicate of the sentence."""
        return f"went away, it is {self.status}"


class RolledBackError(ResourceError):
    """The endpoint is in service, and with what it served before: the new model was taken back."""

    def what_happened(self) -> str:
        """Return the predicate of the sentence."""
        return "was rolled back, and serves what it served before"


class DeadlineError(ResourceError):
    """It was still not done when the deadline passed."""

    def what_happened(self) -> str:
        """Return the predicate of the sentence."""
        return f"was still {self.status} when the deadline passed"


_TRANSIENT_CODES = frozenset(
    {
        "InternalFailure",
        "InternalServerError",
        "InternalServerException",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "RequestTimeout",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
        "RequestLimitExceeded",
        "LimitExceededException",
        "ExpiredToken",
        "ExpiredTokenException",
    }
)
_BROKEN_CONNECTIONS = (
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
    ConnectionError,
)
_SERVER_ERROR = 500


def is_transient_error(error: BaseException | None) -> bool:
    """Tell whether trying again may help: throttling, 5xx, broken connections, roles that are still propagating.

    Anything else (validation, quotas, a failed job) fails at once.
    """
    if isinstance(error, _BROKEN_CONNECTIONS):
        return True
    if not isinstance(error, ClientError):
        return False
    code = error.response.get("Error", {}).get("Code", "")
    if code == "ValidationException":
        return is_role_propagating(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return code in _TRANSIENT_CODES or status >= _SERVER_ERROR


def is_role_propagating(error: ClientError) -> bool:
    """Tell whether SageMaker says that it cannot assume the role, as it does for some seconds after its creation."""
    return "ould not assume role" in error.response.get("Error", {}).get("Message", "")


def is_code(error: ClientError, *codes: str) -> bool:
    """Tell whether the error carries one of the codes."""
    return error.response.get("Error", {}).get("Code") in codes


def sentence_for(error: Exception) -> str:
    """Return what to show a person for an error of AWS or of ours: one clear sentence, no stack trace."""
    if isinstance(error, ClientError):
        details = error.response.get("Error", {})
        return f"AWS refused {error.operation_name} ({details.get('Code')}): {details.get('Message')}"
    if isinstance(error, BotoCoreError):
        return f"AWS could not be asked: {error}"
    return str(error)

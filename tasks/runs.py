"""What a task knows of the Prefect run it is part of: whose resources it makes, where its lines go, how far it is."""

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

from botocore.exceptions import BotoCoreError, ClientError
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import ExternalSignal
from prefect.logging import get_run_logger

from tasks.aws.errors import DeadlineError, RunCancelledError, sentence_for
from tasks.aws.identity import NEVER, Owner
from tasks.aws.jobs import Kind, Submission, stop

# What ends a wait while the thing waited for goes on running: a signal, a cancellation, or our own deadline.
ABANDONED: tuple[type[BaseException], ...] = (
    KeyboardInterrupt,
    SystemExit,
    ExternalSignal,
    RunCancelledError,
    DeadlineError,
)

_UPDATE_SECONDS = 1.0
_EPOCH = re.compile(r"^epoch=(\d+)\b")
_LOGGER = logging.getLogger(__name__)


def in_run() -> bool:
    """Tell whether this code runs inside a flow or task run.

    Prefect starts a server of its own for an artifact made outside of one.
    """
    return FlowRunContext.get() is not None or TaskRunContext.get() is not None


def run_logger() -> "logging.Logger | logging.LoggerAdapter[logging.Logger]":
    """Return the run's logger, or a plain one outside of a run."""
    return get_run_logger() if in_run() else _LOGGER


def current_flow_run_id() -> UUID | None:
    """Return the id of the flow run that this code is part of; None outside of one."""
    context, task_context = FlowRunContext.get(), TaskRunContext.get()
    if context and context.flow_run:
        return context.flow_run.id
    return task_context.task_run.flow_run_id if task_context else None


def current_owner(lifetime: timedelta | None) -> Owner:
    """Return the tags of what this run makes: its flow run, and when it is past due; without a lifetime, never.

    The lifetime counts from the start of the task, which its retries share: they ask AWS for the very same thing, and
    not from the flow's, which may have begun long before.
    """
    task_context = TaskRunContext.get()
    started = task_context.task_run.start_time if task_context else None
    begun = started or datetime.now(tz=UTC)
    expires_at = NEVER if lifetime is None else (begun + lifetime).isoformat(timespec="seconds")
    return Owner(flow_run_id=str(current_flow_run_id() or "none"), expires_at=expires_at)


@contextmanager
def stopped_on_failure(kind: Kind, submission: Submission) -> Iterator[None]:
    """Stop what this flow run asked for when the block fails, however it fails: nobody waits for it any more.

    For flows, around the task that waits: a failure that gets here is one that no retry will mend. What the flow run
    only adopted belongs to another run, which may still want it.
    """
    try:
        yield
    except BaseException:
        if submission.ours:
            _stop(kind, submission.name)
        raise


def _stop(kind: Kind, name: str) -> None:
    """Stop it, and say so; when that fails too, say it, for what is raised must be what ended the wait."""
    try:
        if stop(kind, name):
            run_logger().warning("%s %s is being stopped, nobody waits for it", kind.noun.capitalize(), name)
    except (ClientError, BotoCoreError) as error:
        run_logger().warning("The %s %s could not be stopped, and may bill: %s", kind.noun, name, sentence_for(error))


class Progress:
    """A progress artifact of the current run, updated once a second at most; nothing outside of a run.

    Work never fails because its progress cannot be shown.

    Args:
        key: The artifact's key: lowercase letters, digits and dashes.
        description: What is progressing.
    """

    def __init__(self, key: str, description: str) -> None:
        self._key, self._description = key, description
        self._artifact: UUID | None = None
        self._updated_at = float("-inf")
        self._off = not in_run()
        self.update(0.0)

    def update(self, share: float) -> None:
        """Show a share between 0 and 1; the end is always shown."""
        now = time.monotonic()
        if self._off or (share < 1 and now - self._updated_at < _UPDATE_SECONDS):
            return
        self._updated_at = now
        try:
            self._show(round(100 * min(max(share, 0.0), 1.0), 1))
        except Exception as error:  # noqa: BLE001 - whatever ails the Prefect server, the work goes on
            self._off = True
            run_logger().warning("The progress of %s is no longer shown: %s", self._description, error)

    def _show(self, percent: float) -> None:
        if self._artifact:
            update_progress_artifact(self._artifact, progress=percent)
            return
        made = create_progress_artifact(progress=percent, key=self._key, description=self._description)
        # Prefect's sync and async faces share one name; called from a sync task this is the UUID.
        self._artifact = made if isinstance(made, UUID) else None


class EpochProgress:
    """The progress of a training, read off the lines that its program prints.

    Args:
        key: The artifact's key.
        description: What is progressing.
        epochs: Most epochs that it will take.
    """

    def __init__(self, key: str, description: str, epochs: int) -> None:
        self._progress, self._epochs = Progress(key, description), epochs

    def take_line(self, line: str) -> None:
        """Look for the end of an epoch in a line."""
        epoch = _EPOCH.match(line)
        if epoch:
            # The last twentieth is for the test, the export and the upload.
            self._progress.update(0.95 * int(epoch.group(1)) / self._epochs)

    def end(self) -> None:
        """Show that it is done."""
        self._progress.update(1.0)

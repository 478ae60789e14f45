"""A flow as a command: options from its signature, one clear sentence when it fails, and an exit code."""

import functools
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import cyclopts
import docstring_parser
import httpx
from botocore.exceptions import BotoCoreError, ClientError
from docstring_parser import Docstring, DocstringStyle
from prefect import Flow
from prefect.exceptions import ParameterTypeError
from prefect.settings import get_current_settings
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tasks.aws.errors import FlowsError, sentence_for

_FAILED, _MISUSED, _INTERRUPTED = 1, 2, 130
_POLL_SECONDS = 0.2


def run(flow: Flow[..., Any], show: Callable[[Any], str] = str) -> None:
    """Run a flow from the command line's arguments, print what came of it, and exit.

    Args:
        flow: The flow; its parameters become options, `--dataset.source` for a field of a model.
        show: What to print of its result.
    """
    # Without PREFECT_API_URL, Prefect starts a server for this one run, which takes 16 s and more on a small machine.
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "90")
    sys.exit(_run(flow, show, sys.argv[1:]))


def _run(flow: Flow[..., Any], show: Callable[[Any], str], arguments: list[str]) -> int:
    # cyclopts would look for more in the source of every model, pydantic's own too, which takes seconds.
    docstring_parser.parse_from_object = _parse_docstring
    # `--compute.fallbacks a b` as people write a list.
    lists = cyclopts.Parameter(consume_multiple=True)
    app = cyclopts.App(name=f"python -m flows.{flow.fn.__name__}", version_flags=[], default_parameter=lists)

    @app.default
    @functools.wraps(flow.fn)  # options and help from the function's signature and docstring
    def command(*args: Any, **kwargs: Any) -> None:
        _await_prefect()
        sys.stdout.write(f"{show(flow(*args, **kwargs))}\n")

    try:
        app(arguments, exit_on_error=False, print_error=False)
    except (cyclopts.CycloptsError, ValidationError, ParameterTypeError) as error:
        return _fail(_MISUSED, _misuse(error))
    except (FlowsError, ClientError, BotoCoreError) as error:
        return _fail(_FAILED, sentence_for(error))
    except KeyboardInterrupt:
        return _fail(_INTERRUPTED, "Interrupted; what this run had started is being stopped")
    return 0


def _parse_docstring(obj: Any, style: DocstringStyle = DocstringStyle.AUTO) -> Docstring:
    return docstring_parser.parse(obj.__doc__ or "", style)


def _await_prefect() -> None:
    """Wait for the Prefect server that the environment names, which may have been started at the same time as we.

    Raises:
        FlowsError: Nothing answers there.
    """
    settings = get_current_settings()
    url, told = settings.api.url, False
    deadline = time.monotonic() + settings.server.ephemeral.startup_timeout_seconds
    while url and not _answers(url):
        if time.monotonic() >= deadline:
            msg = f"No Prefect server answers at {url}: start one (make ui), or unset PREFECT_API_URL"
            raise FlowsError(msg)
        if not told:
            sys.stderr.write(f"Waiting for the Prefect server at {url}\n")
            told = True
        time.sleep(_POLL_SECONDS)


def _answers(url: str) -> bool:
    try:
        httpx.get(f"{url}/health")
    except httpx.TransportError:
        return False
    return True


def _misuse(error: Exception) -> str:
    """Say which option is wrong, and how: pydantic knows better than the command line that called it."""
    cause: BaseException | None = error
    while cause and not isinstance(cause, ValidationError):
        cause = cause.__cause__ or cause.__context__
    if not isinstance(cause, ValidationError):
        return " ".join(str(error).split())
    return "; ".join(_complaint(complaint) for complaint in cause.errors())


def _complaint(complaint: ErrorDetails) -> str:
    place = ".".join(str(part) for part in complaint["loc"])
    message = complaint["msg"].removeprefix("Value error, ")
    given = "" if isinstance(complaint["input"], dict) else f", not {complaint['input']!r}"
    return f"{place}: {message}{given}" if place else f"{message}{given}"


def _fail(code: int, sentence: str) -> int:
    sys.stderr.write(f"\n{sentence}\n")
    return code

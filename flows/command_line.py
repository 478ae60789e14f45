"""A flow as a command: options from its signature, one clear sentence when it fails, and an exit code."""

import os
import sys
from collections.abc import Callable
from typing import Any

import cyclopts
from botocore.exceptions import BotoCoreError, ClientError
from prefect import Flow
from pydantic import ValidationError

from tasks.aws.errors import FlowsError, sentence_for

_FAILED, _MISUSED, _INTERRUPTED = 1, 2, 130


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
    app = cyclopts.App(name=f"python -m flows.{flow.fn.__name__}", help=flow.fn.__doc__, version_flags=[])
    app.default(flow.fn)
    _command, bound, _ignored = app.parse_args(arguments)
    try:
        # The command carries the bare function, for its signature; what runs is the flow.
        result = flow(*bound.args, **bound.kwargs)
    except ValidationError as error:
        return _fail(_MISUSED, "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()))
    except (FlowsError, ClientError, BotoCoreError) as error:
        return _fail(_FAILED, sentence_for(error))
    except KeyboardInterrupt:
        return _fail(_INTERRUPTED, "Interrupted; what this run had started is being stopped")
    sys.stdout.write(f"{show(result)}\n")
    return 0


def _fail(code: int, sentence: str) -> int:
    sys.stderr.write(f"\n{sentence}\n")
    return code

"""The Lambda function in front of an endpoint: packed, put, published, tried, and put behind its alias."""

import base64
from datetime import timedelta
from pathlib import Path

from tasks.aws import functions
from tasks.aws.errors import FlowsError, InvocationError
from tasks.aws.function_requests import pack_function
from tasks.aws.jobs import Patience
from tasks.aws.settings import Settings, poll_seconds
from tasks.contracts import FrontResult, FrontSpec, LabelledImage, SampleAnswer
from tasks.retries import retried
from tasks.runs import current_owner, run_logger

_DEADLINE_SECONDS = 600.0
_SOURCE = Path(__file__).parents[1] / "lambda" / "classify_image.py"
# A small grey picture: whatever the model makes of it, an answer to it shows that all parts work together.
_GREY = LabelledImage(
    name="grey.png",
    label="",
    body=base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAADklEQVR4nGNogAIGyhgAgIQgAQ2AJGEAAAAASUVORK5CYII="
    ),
)


@retried("deploy {spec.config.name}")
def deploy_function(
    spec: FrontSpec, settings: Settings, pictures: tuple[LabelledImage, ...], lifetime: timedelta | None = None
) -> FrontResult:
    """Put the function behind its alias, and return what it says there.

    Safe to retry: the digest of the code and the configuration decide what is changed. When the new version does not
    answer, the alias goes back to where it pointed.

    Raises:
        InvocationError: The new version does not answer; the old one is in service again.
        IdentityError: A function of that name is not this project's.
    """
    name, patience = spec.config.name, Patience(poll_seconds(), _DEADLINE_SECONDS)
    functions.keep_log(name, spec.config.log_retention_days)
    change = functions.put_function(spec, settings, current_owner(lifetime), package(), patience)
    version = functions.publish(name, patience)
    before = functions.point_alias(name, version)
    run_logger().info("Function %s: %s, version %s", name, change, version)
    try:
        answers = _try(name, pictures)
    except InvocationError as error:
        functions.restore_alias(name, before)
        where = f"version {before} is in service again" if before else "nothing is in service"
        msg = f"{error}; {where}"
        raise InvocationError(msg) from error
    functions.put_concurrency(spec.config, patience)
    return FrontResult(
        name=name,
        arn=functions.alias_arn(name),
        version=version,
        previous_version=before,
        how=change,
        url=functions.put_url(name),
        answers=answers,
    )


@retried("delete {name}")
def delete_function(name: str) -> bool:
    """Delete a function of this project with all that is kept warm for it, and tell whether it was there.

    Safe to retry: what is gone is gone.
    """
    return functions.delete_function(name)


def package() -> bytes:
    """Return the function's zip.

    Raises:
        FlowsError: The sources are not here.
    """
    if not _SOURCE.is_file():
        msg = f"{_SOURCE} is missing: run from a clone of this project, which the function's source is part of"
        raise FlowsError(msg)
    return pack_function(_SOURCE.read_bytes())


def _try(name: str, pictures: tuple[LabelledImage, ...]) -> tuple[SampleAnswer, ...]:
    functions.ask(name, _GREY)
    return tuple(SampleAnswer(image=picture, answer=functions.ask(name, picture)) for picture in pictures)

"""The life of a Lambda function: made or changed, published, put behind its alias, and back when it does not answer."""

import base64
import json
import time
from typing import Any, Literal

from botocore.exceptions import ClientError

from tasks.aws.clients import client
from tasks.aws.errors import IdentityError, InvocationError, is_code
from tasks.aws.function_requests import (
    ALIAS,
    LOG_GROUP,
    changed_configuration,
    code_sha256,
    configuration_of,
    create_function_request,
)
from tasks.aws.identity import EXPIRES_TAG, PROJECT, PROJECT_TAG, Owner, is_project
from tasks.aws.jobs import Description, Patience, Watched, wait
from tasks.aws.settings import Settings
from tasks.contracts import EndpointAnswer, FrontConfig, FrontSpec, LabelledImage

FUNCTION = "function"
Change = Literal["created", "updated", "unchanged"]
_OK = 200


def put_function(spec: FrontSpec, settings: Settings, owner: Owner, package: bytes, patience: Patience) -> Change:
    """Make the function, or change what is not as it should be; safe to repeat.

    Raises:
        IdentityError: A function of that name is not this project's.
        JobFailedError: Lambda could not make it ready.
    """
    name = spec.config.name
    found = _find(name)
    if found is None:
        client("lambda").create_function(**create_function_request(spec, settings, owner, package))
        _await_ready(name, patience)
        return "created"
    if not is_project(found.get("Tags", {})):
        msg = f"The function {name} does not carry the tag {PROJECT_TAG}={PROJECT}: choose another name"
        raise IdentityError(msg)
    if found["Tags"].get(EXPIRES_TAG, "") < owner.expires_at:  # it is wanted longer than it was
        client("lambda").tag_resource(
            Resource=found["Configuration"]["FunctionArn"], Tags={EXPIRES_TAG: owner.expires_at}
        )
    change: Change = "unchanged"
    if found["Configuration"]["CodeSha256"] != code_sha256(package):
        client("lambda").update_function_code(FunctionName=name, ZipFile=package)
        _await_ready(name, patience)
        change = "updated"
    wanted = configuration_of(spec, settings)
    if changed_configuration(wanted, found["Configuration"]):
        client("lambda").update_function_configuration(**wanted)
        _await_ready(name, patience)
        change = "updated"
    return change


def publish(name: str, patience: Patience) -> str:
    """Publish the function as it is now, and return the version; unchanged since the last, it is that one.

    Raises:
        JobFailedError: Lambda could not make the version ready.
    """
    version = str(client("lambda").publish_version(FunctionName=name)["Version"])
    _await_ready(name, patience, version)
    return version


def point_alias(name: str, version: str) -> str | None:
    """Point the alias to a version, and return which it pointed to before; None when there was no alias."""
    before = alias_version(name)
    if before is None:
        client("lambda").create_alias(FunctionName=name, Name=ALIAS, FunctionVersion=version)
    elif before != version:
        client("lambda").update_alias(FunctionName=name, Name=ALIAS, FunctionVersion=version)
    return before


def restore_alias(name: str, before: str | None) -> None:
    """Put the alias back to where it pointed; where it pointed nowhere, nobody is to call it."""
    if before is None:
        client("lambda").delete_alias(FunctionName=name, Name=ALIAS)
    else:
        client("lambda").update_alias(FunctionName=name, Name=ALIAS, FunctionVersion=before)


def alias_version(name: str) -> str | None:
    """Return the version that the alias points to."""
    try:
        return str(client("lambda").get_alias(FunctionName=name, Name=ALIAS)["FunctionVersion"])
    except ClientError as error:
        if is_code(error, "ResourceNotFoundException"):
            return None
        raise


def put_concurrency(config: FrontConfig, patience: Patience) -> None:
    """Reserve concurrency and keep environments warm, as configured; what is no longer wanted is given back.

    Raises:
        JobFailedError: Lambda could not keep so many warm.
    """
    aws, name = client("lambda"), config.name
    if config.reserved_concurrency is None:
        aws.delete_function_concurrency(FunctionName=name)
    else:
        aws.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=config.reserved_concurrency)
    if config.provisioned_concurrency is None:
        aws.delete_provisioned_concurrency_config(FunctionName=name, Qualifier=ALIAS)
        return
    aws.put_provisioned_concurrency_config(
        FunctionName=name, Qualifier=ALIAS, ProvisionedConcurrentExecutions=config.provisioned_concurrency
    )

    def look() -> Description:
        answer = aws.get_provisioned_concurrency_config(FunctionName=name, Qualifier=ALIAS)
        return {"Status": answer["Status"], "FailureReason": answer.get("StatusReason", "")}

    wait(Watched("provisioned concurrency of", name, look, _status, frozenset({"IN_PROGRESS"}), "READY"), patience)


def put_url(name: str) -> str:
    """Give the alias a URL that takes signed requests only, and return it; safe to repeat.

    https://docs.aws.amazon.com/lambda/latest/api/API_CreateFunctionUrlConfig.html
    """
    aws = client("lambda")
    try:
        return str(aws.get_function_url_config(FunctionName=name, Qualifier=ALIAS)["FunctionUrl"])
    except ClientError as error:
        if not is_code(error, "ResourceNotFoundException"):
            raise
    made = aws.create_function_url_config(FunctionName=name, Qualifier=ALIAS, AuthType="AWS_IAM")
    return str(made["FunctionUrl"])


def keep_log(name: str, days: int) -> None:
    """Make the function's log group before the function does, which would keep it for ever."""
    logs, group = client("logs"), f"{LOG_GROUP}/{name}"
    try:
        logs.create_log_group(logGroupName=group)
    except ClientError as error:
        if not is_code(error, "ResourceAlreadyExistsException"):
            raise
    logs.put_retention_policy(logGroupName=group, retentionInDays=days)


def alias_arn(name: str) -> str:
    """Return the ARN that callers call."""
    return str(client("lambda").get_alias(FunctionName=name, Name=ALIAS)["AliasArn"])


def ask(name: str, image: LabelledImage) -> EndpointAnswer:
    """Ask about a picture through the alias.

    Raises:
        InvocationError: There is no prediction; with what the function said instead.
    """
    payload = json.dumps({"image": base64.b64encode(image.body).decode()}).encode()
    started = time.perf_counter()
    answer = client("lambda").invoke(FunctionName=name, Qualifier=ALIAS, Payload=payload)
    milliseconds = 1000 * (time.perf_counter() - started)
    said = json.loads(answer["Payload"].read())
    if "FunctionError" in answer:
        msg = f"The function {name} failed: {said.get('errorMessage', said)}"
        raise InvocationError(msg)
    body = json.loads(said["body"])
    if said["statusCode"] != _OK:
        msg = f"The function {name} answered {said['statusCode']} for {image.name}: {body.get('error')}"
        raise InvocationError(msg)
    return EndpointAnswer(
        label=body["label"] or "of no known class",
        probability=body["probability"],
        model_version=body["model_version"],
        milliseconds=milliseconds,
    )


def delete_function(name: str) -> bool:
    """Delete a function with its versions, alias, URL and what is kept warm; tell whether it was there.

    Raises:
        IdentityError: It is not this project's.
    """
    found = _find(name)
    if found is None:
        return False
    if not is_project(found.get("Tags", {})):
        msg = f"The function {name} does not carry the tag {PROJECT_TAG}={PROJECT}: it is left alone"
        raise IdentityError(msg)
    client("lambda").delete_function(FunctionName=name)
    return True


def _find(name: str) -> dict[str, Any] | None:
    try:
        return dict(client("lambda").get_function(FunctionName=name))
    except ClientError as error:
        if is_code(error, "ResourceNotFoundException"):
            return None
        raise


def _await_ready(name: str, patience: Patience, version: str = "$LATEST") -> None:
    def look() -> Description:
        found = client("lambda").get_function_configuration(FunctionName=name, Qualifier=version)
        pending = "Pending" if found["State"] == "Pending" else found.get("LastUpdateStatus", "Successful")
        reason = found.get("LastUpdateStatusReason") or found.get("StateReason", "")
        return {"Status": "Failed" if found["State"] == "Failed" else pending, "FailureReason": reason}

    wait(Watched(FUNCTION, name, look, _status, frozenset({"Pending", "InProgress"}), "Successful"), patience)


def _status(description: Description) -> str:
    return str(description["Status"])

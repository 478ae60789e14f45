"""Lambda of the local AWS: what it promises of functions, kept by real processes."""

import base64
import io
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from deployments.local_aws.function_invocations import Invocations
from deployments.local_aws.function_pool import EnvironmentPool

pytestmark = pytest.mark.slow

ONCE = Config(retries={"total_max_attempts": 1})  # throttling is what clients repeat
ECHO = """
import json, logging, os, sys, time

logging.getLogger().setLevel(logging.INFO)
served = 0

def handler(event, context):
    global served
    served += 1
    event = event if isinstance(event, dict) else {"said": event}
    if "write" in event:
        print(event["write"])
    if "log" in event:
        logging.info(event["log"])
    if "sleep" in event:
        time.sleep(event["sleep"])
    if "raise" in event:
        raise ValueError(event["raise"])
    if "exit" in event:
        sys.exit(event["exit"])
    if "kill" in event:
        os.kill(os.getpid(), 9)
    if "megabytes" in event:
        return len(bytearray(event["megabytes"] * 2**20))
    if "characters" in event:
        return "x" * event["characters"]
    if "object" in event:
        return object()
    if "answer" in event:
        return event["answer"]
    if "append" in event:
        with open(event["append"], "a") as file:
            file.write(context.aws_request_id + "\\n")
        if event.get("fail"):
            raise RuntimeError
    told = {name: getattr(context, name) for name in dir(context) if not name.startswith("_") and name[0] != "g"}
    return {
        "pid": os.getpid(), "served": served, "event": event, "context": told, "greeting": os.environ.get("GREETING"),
        "left": context.get_remaining_time_in_millis(), "environment": dict(os.environ),
    }
"""
_numbers = count()


def package(**modules: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, source in modules.items():
            archive.writestr(f"{name}.py", source)
    return buffer.getvalue()


class Lambda:
    """Lambda as a test uses it."""

    def __init__(self, cloud: Any) -> None:
        self.cloud, self.role = cloud, cloud.outputs["LambdaRoleArn"]
        self.client = boto3.client("lambda", config=ONCE)

    def create(self, source: str = ECHO, **changes: Any) -> str:
        name = f"flows-test-{next(_numbers)}"
        request = {
            "FunctionName": name,
            "Runtime": "python3.13",
            "Role": self.role,
            "Handler": "app.handler",
            "Code": {"ZipFile": package(app=source)},
            "Timeout": 10,
            "MemorySize": 256,
        }
        self.client.create_function(**{**request, **changes})
        self.settled(name)
        return name

    def settled(self, name: str) -> None:
        for waiter in ("function_active_v2", "function_updated_v2"):
            self.client.get_waiter(waiter).wait(FunctionName=name, WaiterConfig={"Delay": 0.02})

    def publish(self, name: str) -> str:
        number = str(self.client.publish_version(FunctionName=name)["Version"])
        waiter = self.client.get_waiter("published_version_active")
        waiter.wait(FunctionName=name, Qualifier=number, WaiterConfig={"Delay": 0.02})
        return number

    def invoke(self, name: str, event: Any = None, **options: Any) -> dict[str, Any]:
        answer = self.client.invoke(FunctionName=name, Payload=json.dumps(event or {}), **options)
        log = base64.b64decode(answer.get("LogResult", "")).decode()
        return {**answer, "log": log, "result": json.loads(answer["Payload"].read() or "null")}

    def result(self, name: str, event: Any = None, **options: Any) -> dict[str, Any]:
        answer = self.invoke(name, event, **options)
        assert "FunctionError" not in answer, answer["result"]
        return dict(answer["result"])

    def provisioned(self, name: str, qualifier: str) -> dict[str, Any]:
        look = lambda: self.client.get_provisioned_concurrency_config(FunctionName=name, Qualifier=qualifier)  # noqa: E731
        return dict(self.cloud.until(look, lambda seen: seen["Status"] != "IN_PROGRESS", 20))

    def lines(self, name: str) -> list[str]:
        group = f"/aws/lambda/{name}"
        made = self.cloud.logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
        return list(self.cloud.lines(group, "2")) if made else []


@pytest.fixture(scope="module")
def aws_lambda(cloud: Any) -> Iterator[Lambda]:
    functions = Lambda(cloud)
    yield functions
    for function in functions.client.list_functions()["Functions"]:
        functions.client.delete_function(FunctionName=function["FunctionName"])


@pytest.fixture(scope="module")
def echo(aws_lambda: Lambda) -> str:
    """Return a function that tests may call, and not change."""
    return aws_lambda.create()


def refused(call: Any, **request: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**request)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


# --- invoke ---------------------------------------------------------------------------------------------------------


def test_a_function_answers_its_event_in_an_environment_of_its_own(aws_lambda: Lambda, monkeypatch: Any) -> None:
    monkeypatch.setenv("SECRET_OF_THE_MACHINE", "x")
    name = aws_lambda.create(Environment={"Variables": {"GREETING": "hello"}})
    answer = aws_lambda.invoke(name, {"a": [1, "ü"]})
    result, variables = answer["result"], answer["result"]["environment"]
    assert (answer["StatusCode"], answer["ExecutedVersion"]) == (200, "$LATEST")
    assert (result["event"], result["greeting"]) == ({"a": [1, "ü"]}, "hello")
    assert "SECRET_OF_THE_MACHINE" not in variables
    assert variables["AWS_LAMBDA_FUNCTION_NAME"] == result["context"]["function_name"] == name
    assert variables["AWS_LAMBDA_FUNCTION_VERSION"] == result["context"]["function_version"] == "$LATEST"
    assert variables["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == result["context"]["memory_limit_in_mb"] == "256"
    assert variables["_HANDLER"] == "app.handler"
    assert (Path(variables["LAMBDA_TASK_ROOT"]) / "app.py").exists()
    assert result["context"]["invoked_function_arn"].endswith(f":function:{name}")
    assert 5000 < result["left"] <= 10000


def test_a_function_has_the_credentials_of_its_role(aws_lambda: Lambda) -> None:
    source = "import boto3\ndef handler(event, context):\n    return boto3.client('sts').get_caller_identity()['Arn']\n"
    name = aws_lambda.create(source)
    answer = aws_lambda.invoke(name)
    assert answer["result"].endswith(f":assumed-role/{aws_lambda.role.rpartition('/')[2]}/{name}")


def test_an_environment_stays_warm_and_serves_one_event_at_a_time(aws_lambda: Lambda) -> None:
    name = aws_lambda.create()
    first, second = aws_lambda.result(name), aws_lambda.result(name)
    assert (first["pid"], first["served"], second["served"]) == (second["pid"], 1, 2)
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(lambda _: aws_lambda.result(name, {"sleep": 0.5}), range(2)))
    assert len({one["pid"] for one in both}) == 2


def test_an_environment_that_was_idle_for_long_ends(aws_lambda: Lambda, monkeypatch: pytest.MonkeyPatch) -> None:
    name = aws_lambda.create()
    pid = aws_lambda.result(name)["pid"]
    monkeypatch.setattr(EnvironmentPool, "idle_seconds", 0.0)
    aws_lambda.cloud.until(lambda: is_running(pid), lambda running: not running)


def test_errors_come_as_lambda_gives_them(aws_lambda: Lambda, echo: str) -> None:
    answer = aws_lambda.invoke(echo, {"raise": "bad"}, LogType="Tail")
    assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
    assert (answer["result"]["errorType"], answer["result"]["errorMessage"]) == ("ValueError", "bad")
    assert len(answer["result"]["stackTrace"]) == 1
    assert 'app.py", line' in answer["result"]["stackTrace"][0]
    assert "[ERROR] ValueError: bad\nTraceback (most recent call last):\n" in answer["log"]
    assert aws_lambda.result(echo)["served"] > 1  # an exception does not end the environment


@pytest.mark.parametrize(
    ("event", "error_type", "words"),
    [
        ({"exit": 1}, "Runtime.ExitError", "Runtime exited with error: exit status 1"),
        ({"exit": 0}, "Runtime.ExitError", "Runtime exited without providing a reason"),
        ({"kill": 1}, "Runtime.ExitError", "signal: killed"),
        ({"object": 1}, "Runtime.MarshalError", "Unable to marshal response"),
        ({"megabytes": 400}, "Runtime.OutOfMemory", "signal: killed"),
        ({"characters": 6 * 2**20 + 200}, "Function.ResponseSizeTooLarge", "exceeded maximum allowed payload size"),
    ],
)
def test_a_failing_process_is_told_and_replaced(
    aws_lambda: Lambda, echo: str, event: dict[str, Any], error_type: str, words: str
) -> None:
    answer = aws_lambda.invoke(echo, event)
    assert (answer["FunctionError"], answer["result"]["errorType"]) == ("Unhandled", error_type)
    assert words in answer["result"]["errorMessage"]
    assert aws_lambda.result(echo)["event"] == {}


def test_memory_is_limited_and_not_less_than_asked_for(aws_lambda: Lambda) -> None:
    name = aws_lambda.create(MemorySize=512)
    assert aws_lambda.invoke(name, {"megabytes": 400})["result"] == 400 * 2**20


def test_a_function_that_takes_too_long_is_ended(aws_lambda: Lambda) -> None:
    name = aws_lambda.create(Timeout=1)
    pid = aws_lambda.result(name)["pid"]
    answer = aws_lambda.invoke(name, {"write": "before", "sleep": 30}, LogType="Tail")
    assert answer["FunctionError"] == "Unhandled"
    assert answer["result"]["errorMessage"].endswith("Task timed out after 1.00 seconds")
    assert re.search(r"\nbefore\n.*Task timed out after 1\.00 seconds\nEND RequestId", answer["log"])
    assert not is_running(pid)
    assert aws_lambda.result(name)["pid"] != pid


@pytest.mark.parametrize(
    ("source", "handler", "error_type", "words"),
    [
        ("import nowhere_to_be_found", "app.handler", "Runtime.ImportModuleError", "Unable to import module 'app'"),
        ("", "other.handler", "Runtime.ImportModuleError", "No module named 'other'"),
        ("", "app.handler", "Runtime.HandlerNotFound", "Handler 'handler' missing on module 'app'"),
        ("def f(:", "app.f", "Runtime.UserCodeSyntaxError", "Syntax error in module 'app'"),
        ("raise ValueError('no endpoint name')", "app.f", "ValueError", "no endpoint name"),
        ("import sys; sys.exit(3)", "app.f", "Runtime.ExitError", "exit status 3"),
    ],
)
def test_a_module_that_cannot_be_loaded_fails_every_event(
    aws_lambda: Lambda, source: str, handler: str, error_type: str, words: str
) -> None:
    name = aws_lambda.create(source, Handler=handler)
    answer = aws_lambda.invoke(name)
    assert (answer["FunctionError"], answer["result"]["errorType"]) == ("Unhandled", error_type)
    assert words in answer["result"]["errorMessage"]


def test_logs_go_to_the_functions_group_with_start_end_and_report(aws_lambda: Lambda) -> None:
    name = aws_lambda.create()
    tail = aws_lambda.invoke(name, {"write": "written", "log": "logged"}, LogType="Tail")["log"].splitlines()
    request_id = tail[0].split()[2]
    assert tail[0] == f"START RequestId: {request_id} Version: $LATEST"
    assert tail[1] == "written"
    assert re.fullmatch(rf"\[INFO\]\t[\d-]+T[\d:.]+Z\t{request_id}\tlogged", tail[2])
    assert tail[3] == f"END RequestId: {request_id}"
    assert re.match(
        rf"REPORT RequestId: {request_id}\tDuration: [\d.]+ ms\tBilled Duration: \d+ ms\t"
        r"Memory Size: 256 MB\tMax Memory Used: [1-9]\d* MB\tInit Duration: [\d.]+ ms\t",
        tail[4],
    )
    assert "Init Duration" not in aws_lambda.invoke(name, LogType="Tail")["log"]
    seen = aws_lambda.cloud.until(lambda: aws_lambda.lines(name), lambda lines: len(lines) >= 9)
    assert seen[0].startswith("INIT_START Runtime Version: python:3.")
    assert seen[1:6] == tail
    streams = aws_lambda.cloud.logs.describe_log_streams(logGroupName=f"/aws/lambda/{name}")["logStreams"]
    assert [
        re.sub(r"[0-9a-f]{32}", "x", re.sub(r"\d", "9", one["logStreamName"][:10]) + one["logStreamName"][10:])
        for one in streams
    ] == ["9999/99/99/[$LATEST]x"]


def test_a_dry_run_does_nothing(aws_lambda: Lambda, echo: str) -> None:
    answer = aws_lambda.client.invoke(FunctionName=echo, InvocationType="DryRun")
    assert (answer["StatusCode"], answer["Payload"].read()) == (204, b"")


def test_an_event_runs_later_and_is_tried_again_when_it_fails(
    aws_lambda: Lambda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Invocations, "retry_seconds", (0.05, 0.05))
    name, good, bad = aws_lambda.create(), tmp_path / "good", tmp_path / "bad"
    for event in ({"append": str(good)}, {"append": str(bad), "fail": True}):
        assert aws_lambda.invoke(name, event, InvocationType="Event")["StatusCode"] == 202
    aws_lambda.cloud.until(lambda: bad.exists() and len(bad.read_text().splitlines()), lambda tries: tries == 3)
    assert len(set(bad.read_text().splitlines())) == 1  # the request's id stays
    assert len(good.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("payload", "kind", "code"),
    [
        (b"{", "RequestResponse", "InvalidRequestContentException"),
        (b"\xff", "RequestResponse", "InvalidRequestContentException"),
        (b'"' + b"x" * (6 * 2**20) + b'"', "RequestResponse", "RequestTooLargeException"),
        (b'"' + b"x" * 2**20 + b'"', "Event", "RequestTooLargeException"),
    ],
)
def test_a_payload_that_will_not_do_is_refused(
    aws_lambda: Lambda, echo: str, payload: bytes, kind: str, code: str
) -> None:
    assert refused(aws_lambda.client.invoke, FunctionName=echo, Payload=payload, InvocationType=kind)[0] == code


def test_a_payload_of_nearly_six_megabytes_goes_there_and_back(aws_lambda: Lambda, echo: str) -> None:
    text = "x" * (6 * 2**20 - 50)
    assert aws_lambda.invoke(echo, {"answer": text})["result"] == text


# --- functions and their versions -----------------------------------------------------------------------------------


def test_a_function_is_pending_before_it_is_active(aws_lambda: Lambda, monkeypatch: pytest.MonkeyPatch) -> None:
    from deployments.local_aws.functions import Functions

    monkeypatch.setattr(Functions, "settle_seconds", 0.5)
    client, request = aws_lambda.client, {"Role": aws_lambda.role, "Handler": "app.handler", "Runtime": "python3.13"}
    made = client.create_function(FunctionName="flows-pending", Code={"ZipFile": package(app=ECHO)}, **request)
    assert (made["State"], made["StateReasonCode"]) == ("Pending", "Creating")
    for call in (client.invoke, client.publish_version):
        code, words = refused(call, FunctionName="flows-pending")
        assert code == "ResourceConflictException"
        assert "state: Pending" in words
    aws_lambda.settled("flows-pending")
    changed = client.update_function_configuration(FunctionName="flows-pending", Timeout=7)
    assert (changed["State"], changed["LastUpdateStatus"], changed["Timeout"]) == ("Active", "InProgress", 7)
    code, words = refused(client.update_function_configuration, FunctionName="flows-pending", Timeout=8)
    assert code == "ResourceConflictException"
    assert "An update is in progress" in words
    assert aws_lambda.result("flows-pending")["event"] == {}


def test_what_was_created_can_be_read(aws_lambda: Lambda) -> None:
    code = package(app=ECHO)
    name = aws_lambda.create(Tags={"project": "sagemaker-flows"}, Description="in front")
    seen = aws_lambda.client.get_function(FunctionName=name)
    configuration, arn = seen["Configuration"], seen["Configuration"]["FunctionArn"]
    assert (configuration["Runtime"], configuration["Handler"], configuration["Role"]) == (
        "python3.13",
        "app.handler",
        aws_lambda.role,
    )
    assert (configuration["CodeSize"], configuration["Version"]) == (len(code), "$LATEST")
    assert seen["Tags"] == {"project": "sagemaker-flows"}
    for way in (name, arn, f"{arn}:$LATEST", f"123456789012:function:{name}"):
        assert aws_lambda.client.get_function_configuration(FunctionName=way)["Description"] == "in front"
    aws_lambda.client.tag_resource(Resource=arn, Tags={"a": "b"})
    aws_lambda.client.untag_resource(Resource=arn, TagKeys=["project"])
    assert aws_lambda.client.list_tags(Resource=arn)["Tags"] == {"a": "b"}


def test_functions_are_listed_by_pages(aws_lambda: Lambda) -> None:
    names = {aws_lambda.create() for _ in range(3)}
    pages = aws_lambda.client.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 2})
    assert names <= {one["FunctionName"] for page in pages for one in page["Functions"]}


def test_new_code_and_new_settings_take_effect(aws_lambda: Lambda) -> None:
    client, name = aws_lambda.client, aws_lambda.create()
    first = aws_lambda.result(name)
    client.update_function_configuration(FunctionName=name, Environment={"Variables": {"GREETING": "new"}})
    aws_lambda.settled(name)
    second = aws_lambda.result(name)
    assert (first["greeting"], second["greeting"]) == (None, "new")
    assert not is_running(first["pid"])
    client.update_function_code(FunctionName=name, ZipFile=package(app="def handler(e, c): return 'other'"))
    aws_lambda.settled(name)
    assert aws_lambda.invoke(name)["result"] == "other"


def test_code_comes_from_s3_too(aws_lambda: Lambda) -> None:
    source = {"S3Bucket": aws_lambda.cloud.bucket, "S3Key": "code/function.zip"}
    aws_lambda.cloud.s3.put_object(Bucket=source["S3Bucket"], Key=source["S3Key"], Body=package(app=ECHO))
    assert aws_lambda.result(aws_lambda.create(Code=source))["event"] == {}
    code, words = refused(aws_lambda.create, Code={**source, "S3Key": "code/none.zip"})
    assert (code, "S3 Error Code: NoSuchKey" in words) == ("InvalidParameterValueException", True)


def test_a_published_version_never_changes(aws_lambda: Lambda) -> None:
    client, name = aws_lambda.client, aws_lambda.create("def handler(e, c): return 'one'")
    assert aws_lambda.publish(name) == "1"
    assert aws_lambda.publish(name) == "1"  # nothing has changed
    client.update_function_code(FunctionName=name, ZipFile=package(app="def handler(e, c): return 'two'"))
    aws_lambda.settled(name)
    sha256 = client.get_function_configuration(FunctionName=name)["CodeSha256"]
    wrong = refused(client.publish_version, FunctionName=name, CodeSha256="x" * 44)
    assert wrong[0] == "InvalidParameterValueException"
    assert client.publish_version(FunctionName=name, CodeSha256=sha256)["Version"] == "2"
    aws_lambda.publish(name)
    assert [aws_lambda.invoke(name, Qualifier=number)["result"] for number in ("1", "2")] == ["one", "two"]
    assert aws_lambda.invoke(name, Qualifier="1")["ExecutedVersion"] == "1"
    listed = client.list_versions_by_function(FunctionName=name)["Versions"]
    assert [one["Version"] for one in listed] == ["$LATEST", "1", "2"]
    client.delete_function(FunctionName=name, Qualifier="1")
    assert refused(client.invoke, FunctionName=f"{name}:1")[0] == "ResourceNotFoundException"


def test_an_alias_leads_where_it_was_moved(aws_lambda: Lambda) -> None:
    client, name = aws_lambda.client, aws_lambda.create("def handler(e, c): return 'one'")
    first = aws_lambda.publish(name)
    client.update_function_code(FunctionName=name, ZipFile=package(app="def handler(e, c): return 'two'"))
    aws_lambda.settled(name)
    second = aws_lambda.publish(name)
    alias = client.create_alias(FunctionName=name, Name="live", FunctionVersion=first)
    assert aws_lambda.invoke(alias["AliasArn"])["result"] == "one"
    assert refused(client.create_alias, FunctionName=name, Name="live", FunctionVersion=first)[0] == (
        "ResourceConflictException"
    )
    moved = client.update_alias(FunctionName=name, Name="live", FunctionVersion=second)
    assert aws_lambda.invoke(name, Qualifier="live")["result"] == "two"
    stale = refused(client.update_alias, FunctionName=name, Name="live", RevisionId=alias["RevisionId"])
    assert stale[0] == "PreconditionFailedException"
    assert client.get_alias(FunctionName=name, Name="live")["RevisionId"] == moved["RevisionId"]
    assert "aliases reference it: [live]" in refused(client.delete_function, FunctionName=name, Qualifier=second)[1]
    assert [one["Name"] for one in client.list_aliases(FunctionName=name)["Aliases"]] == ["live"]
    client.delete_alias(FunctionName=name, Name="live")
    assert refused(client.get_alias, FunctionName=name, Name="live")[0] == "ResourceNotFoundException"


def test_an_alias_shares_its_events_by_weight(aws_lambda: Lambda) -> None:
    client, name = aws_lambda.client, aws_lambda.create("def handler(e, c): return 'one'")
    first = aws_lambda.publish(name)
    client.update_function_code(FunctionName=name, ZipFile=package(app="def handler(e, c): return 'two'"))
    aws_lambda.settled(name)
    second = aws_lambda.publish(name)
    routing = {"AdditionalVersionWeights": {second: 0.5}}
    client.create_alias(FunctionName=name, Name="live", FunctionVersion=first, RoutingConfig=routing)
    answers = [aws_lambda.invoke(name, Qualifier="live")["result"] for _ in range(40)]
    assert 5 < answers.count("two") < 35
    client.update_alias(FunctionName=name, Name="live", RoutingConfig={"AdditionalVersionWeights": {second: 1.0}})
    assert aws_lambda.invoke(name, Qualifier="live")["ExecutedVersion"] == second


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"Runtime": "nodejs22.x"}, "runs Python 3 functions"),
        (
            {"Role": "arn:aws:iam::123456789012:role/none"},
            "The role defined for the function cannot be assumed by Lambda.",
        ),
        ({"Code": {"ZipFile": b"no zip"}}, "Could not unzip uploaded file"),
        ({"Environment": {"Variables": {"AWS_REGION": "x"}}}, "Reserved keys used in this request: AWS_REGION"),
        ({"Environment": {"Variables": {"A1": "x" * 5000}}}, "exceeded the 4KB limit"),
        ({"Timeout": 901}, "900 seconds at most"),
        ({"Layers": ["arn:aws:lambda:us-east-1:123456789012:layer:x:1"]}, "does not implement Layers"),
        ({"VpcConfig": {"SubnetIds": ["subnet-1"]}}, "does not implement VpcConfig"),
        ({"TracingConfig": {"Mode": "Active"}}, "TracingConfig.Mode=Active"),
        ({"EphemeralStorage": {"Size": 1024}}, "EphemeralStorage.Size=1024"),
        ({"PackageType": "Image", "Code": {"ImageUri": "x"}}, "does not implement"),
    ],
)
def test_a_function_that_would_not_run_as_asked_is_refused(
    aws_lambda: Lambda, changes: dict[str, Any], words: str
) -> None:
    code, message = refused(aws_lambda.create, **changes)
    assert code == "InvalidParameterValueException"
    assert words in message


def test_a_role_that_does_not_trust_lambda_is_refused(aws_lambda: Lambda) -> None:
    code, message = refused(aws_lambda.create, Role=aws_lambda.cloud.outputs["TrainingRoleArn"])
    assert (code, message) == (
        "InvalidParameterValueException",
        "The role defined for the function cannot be assumed by Lambda.",
    )


def test_a_package_cannot_leave_its_folder(aws_lambda: Lambda, local_aws: Any) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../../escaped.py", "x")
    code, message = refused(aws_lambda.create, Code={"ZipFile": buffer.getvalue()})
    assert (code, "would leave its folder" in message) == ("InvalidParameterValueException", True)
    assert not list(local_aws.account.root.rglob("escaped.py"))


def test_names_are_unique_and_what_is_unknown_is_not_found(aws_lambda: Lambda, echo: str) -> None:
    code, message = refused(aws_lambda.create, FunctionName=echo)
    assert (code, message) == ("ResourceConflictException", f"Function already exist: {echo}")
    for call in (aws_lambda.client.invoke, aws_lambda.client.get_function, aws_lambda.client.delete_function):
        code, message = refused(call, FunctionName="flows-none")
        arn = "arn:aws:lambda:us-east-1:123456789012:function:flows-none"
        assert (code, message) == ("ResourceNotFoundException", f"Function not found: {arn}")
    assert refused(aws_lambda.client.invoke, FunctionName=echo, Qualifier="9")[0] == "ResourceNotFoundException"
    contradiction = refused(aws_lambda.client.invoke, FunctionName=f"{echo}:1", Qualifier="2")
    assert contradiction[0] == "InvalidParameterValueException"


def test_permissions_are_kept(aws_lambda: Lambda) -> None:
    client, name = aws_lambda.client, aws_lambda.create()
    request = {"Action": "lambda:InvokeFunction", "Principal": "apigateway.amazonaws.com", "SourceArn": "arn:aws:x:::y"}
    client.add_permission(FunctionName=name, StatementId="gateway", **request)
    assert refused(client.add_permission, FunctionName=name, StatementId="gateway", **request)[0] == (
        "ResourceConflictException"
    )
    statement = json.loads(client.get_policy(FunctionName=name)["Policy"])["Statement"][0]
    assert statement["Principal"] == {"Service": "apigateway.amazonaws.com"}
    assert statement["Condition"] == {"ArnLike": {"AWS:SourceArn": "arn:aws:x:::y"}}
    client.remove_permission(FunctionName=name, StatementId="gateway")
    assert refused(client.get_policy, FunctionName=name)[0] == "ResourceNotFoundException"


# --- concurrency ----------------------------------------------------------------------------------------------------


def test_more_events_than_reserved_are_throttled(aws_lambda: Lambda) -> None:
    client, name = aws_lambda.client, aws_lambda.create()
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    assert client.get_function_concurrency(FunctionName=name)["ReservedConcurrentExecutions"] == 1
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(aws_lambda.result, name, {"sleep": 1})
        time.sleep(0.3)
        with pytest.raises(ClientError) as caught:
            aws_lambda.invoke(name)
        assert running.result()["event"] == {"sleep": 1}
    response = caught.value.response
    assert (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]) == (
        "TooManyRequestsException",
        429,
    )
    assert response["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    assert refused(aws_lambda.invoke, name=name)[0] == "TooManyRequestsException"
    client.delete_function_concurrency(FunctionName=name)
    assert aws_lambda.result(name)["event"] == {}


def test_no_content_is_none(aws_lambda: Lambda, echo: str, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):  # on one connection: when the second is answered, the first has been logged
        answer = aws_lambda.client.delete_function_concurrency(FunctionName=echo)
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert "may not contain a message-body" not in caplog.text


def test_a_reservation_leaves_something_for_the_others(aws_lambda: Lambda, echo: str) -> None:
    call = aws_lambda.client.put_function_concurrency
    code, message = refused(call, FunctionName=echo, ReservedConcurrentExecutions=901)
    assert (code, "below its minimum value of [100]" in message) == ("InvalidParameterValueException", True)


def test_provisioned_environments_are_warm_before_their_first_event(aws_lambda: Lambda) -> None:
    client, name = aws_lambda.client, aws_lambda.create()
    number = aws_lambda.publish(name)
    client.create_alias(FunctionName=name, Name="live", FunctionVersion=number)
    put = client.put_provisioned_concurrency_config(
        FunctionName=name, Qualifier="live", ProvisionedConcurrentExecutions=2
    )
    assert (put["Status"], put["RequestedProvisionedConcurrentExecutions"]) == ("IN_PROGRESS", 2)
    ready = aws_lambda.provisioned(name, "live")
    assert (ready["Status"], ready["AvailableProvisionedConcurrentExecutions"]) == ("READY", 2)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: aws_lambda.result(name, {"sleep": 0.3}, Qualifier="live"), range(2)))
    kinds = {one["environment"]["AWS_LAMBDA_INITIALIZATION_TYPE"] for one in both}
    assert (kinds, len({one["pid"] for one in both})) == ({"provisioned-concurrency"}, 2)
    aws_lambda.invoke(name, {"kill": 1}, Qualifier="live")  # another one comes in its place
    available = lambda: aws_lambda.provisioned(name, "live")["AvailableProvisionedConcurrentExecutions"]  # noqa: E731
    aws_lambda.cloud.until(available, lambda seen: seen == 2)
    listed = client.list_provisioned_concurrency_configs(FunctionName=name)["ProvisionedConcurrencyConfigs"]
    assert [one["FunctionArn"].rpartition(":")[2] for one in listed] == ["live"]
    client.delete_provisioned_concurrency_config(FunctionName=name, Qualifier="live")
    gone = refused(client.get_provisioned_concurrency_config, FunctionName=name, Qualifier="live")
    assert gone[0] == "ProvisionedConcurrencyConfigNotFoundException"


def test_what_is_provisioned_moves_with_its_alias(aws_lambda: Lambda) -> None:
    client, name = aws_lambda.client, aws_lambda.create()
    first = aws_lambda.publish(name)
    client.create_alias(FunctionName=name, Name="live", FunctionVersion=first)
    client.put_provisioned_concurrency_config(FunctionName=name, Qualifier="live", ProvisionedConcurrentExecutions=1)
    aws_lambda.provisioned(name, "live")
    client.update_function_configuration(FunctionName=name, Timeout=9)
    aws_lambda.settled(name)
    second = aws_lambda.publish(name)
    client.update_alias(FunctionName=name, Name="live", FunctionVersion=second)
    assert aws_lambda.provisioned(name, "live")["Status"] == "READY"
    result = aws_lambda.result(name, Qualifier="live")
    assert result["environment"]["AWS_LAMBDA_INITIALIZATION_TYPE"] == "provisioned-concurrency"
    assert result["context"]["function_version"] == second


def test_environments_that_cannot_be_loaded_are_told(aws_lambda: Lambda) -> None:
    name = aws_lambda.create("raise ValueError('no endpoint name')")
    number = aws_lambda.publish(name)
    put = aws_lambda.client.put_provisioned_concurrency_config
    put(FunctionName=name, Qualifier=number, ProvisionedConcurrentExecutions=1)
    seen = aws_lambda.provisioned(name, number)
    assert (seen["Status"], "no endpoint name" in seen["StatusReason"]) == ("FAILED", True)


def test_only_what_is_published_and_reserved_is_provisioned(aws_lambda: Lambda) -> None:
    client, name = aws_lambda.client, aws_lambda.create()
    number = aws_lambda.publish(name)
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    put = client.put_provisioned_concurrency_config
    for qualifier, amount, words in (
        ("$LATEST", 1, "unpublished function versions"),
        (number, 2, "greater than the reservedConcurrentExecution"),
    ):
        request = {"FunctionName": name, "Qualifier": qualifier, "ProvisionedConcurrentExecutions": amount}
        assert words in refused(put, **request)[1]
    client.delete_function_concurrency(FunctionName=name)
    request = {"FunctionName": name, "Qualifier": number, "ProvisionedConcurrentExecutions": 500}
    assert "keeps 16 environments at most" in refused(put, **request)[1]


# --- function URLs --------------------------------------------------------------------------------------------------


def signed(
    method: str,
    url: str,
    body: bytes = b"",
    service: str = "lambda",
    key: tuple[str, str] | None = None,
    **headers: str,
) -> httpx.Response:
    request = AWSRequest(method, url, data=body, headers={"host": urlsplit(url).netloc, **headers})
    key = key or (os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    SigV4Auth(Credentials(*key), service, "us-east-1").add_auth(request)
    return httpx.request(method, url, content=body, headers=dict(request.headers), trust_env=False)


@pytest.fixture(scope="module")
def url(aws_lambda: Lambda) -> str:
    source = """
import json
def handler(event, context):
    answer = json.loads(event["body"]) if "answer" in event["rawPath"] else None
    return answer if answer is not None else {"event": event}
"""
    name = aws_lambda.create(source)
    made = aws_lambda.client.create_function_url_config(FunctionName=name, AuthType="AWS_IAM")
    seen = aws_lambda.client.get_function_url_config(FunctionName=name)
    assert (seen["FunctionUrl"], seen["AuthType"]) == (made["FunctionUrl"], "AWS_IAM")
    again = refused(aws_lambda.client.create_function_url_config, FunctionName=name, AuthType="AWS_IAM")
    assert again[0] == "ResourceConflictException"
    return str(made["FunctionUrl"])


def test_a_url_brings_a_request_in_payload_format_2(url: str) -> None:
    answer = signed("POST", f"{url}a%20b/c?x=1&x=2&y=", b"\x89PNG", **{"content-type": "image/png", "x-own": "z"})
    event = answer.json()["event"]
    assert (answer.status_code, event["version"], event["routeKey"]) == (200, "2.0", "$default")
    assert (event["rawPath"], event["rawQueryString"]) == ("/a%20b/c", "x=1&x=2&y=")
    assert event["queryStringParameters"] == {"x": "1,2", "y": ""}
    assert (event["isBase64Encoded"], base64.b64decode(event["body"])) == (True, b"\x89PNG")
    assert (event["requestContext"]["http"]["method"], event["requestContext"]["http"]["path"]) == ("POST", "/a b/c")
    assert (event["headers"]["x-own"], event["headers"]["content-type"]) == ("z", "image/png")
    assert "authorization" not in event["headers"]
    text = signed("POST", url, b'{"a": 1}', **{"content-type": "application/json"}).json()["event"]
    assert (text["isBase64Encoded"], text["body"]) == (False, '{"a": 1}')
    assert "body" not in signed("GET", url).json()["event"]


@pytest.mark.parametrize(
    ("result", "status", "content_type", "body"),
    [
        ({"statusCode": 415, "body": "no", "headers": {"Content-Type": "text/plain"}}, 415, "text/plain", b"no"),
        ({"statusCode": 200, "body": "iVA=", "isBase64Encoded": True}, 200, "application/json", b"\x89P"),
        ({"hello": 1}, 200, "application/json", b'{"hello": 1}'),
        ({"statusCode": "x"}, 502, "application/json", b'{"Message": "Internal Server Error"}'),
        ({"statusCode": 200, "headers": {"a": "b\r\nc: d"}}, 502, "application/json", None),
        ({"statusCode": 200, "headers": {"content-length": "7"}, "body": "abc"}, 200, "application/json", b"abc"),
    ],
)
def test_a_url_answers_as_the_handler_says(
    url: str, result: dict[str, Any], status: int, content_type: str, body: bytes | None
) -> None:
    answer = signed("POST", f"{url}answer", json.dumps(result).encode(), **{"content-type": "application/json"})
    assert (answer.status_code, answer.headers["content-type"]) == (status, content_type)
    assert body in (None, answer.content)


def test_an_error_in_the_handler_is_no_more_than_a_502(url: str) -> None:
    answer = signed("POST", f"{url}answer", b"{", **{"content-type": "application/json"})
    assert (answer.status_code, answer.json()) == (502, {"Message": "Internal Server Error"})


def test_a_url_wants_a_signature_and_no_browser(url: str) -> None:
    assert httpx.post(url, trust_env=False).status_code == 403
    assert signed("POST", url, service="execute-api").status_code == 403
    assert signed("POST", url, Origin="https://elsewhere.example").status_code == 403
    assert signed("POST", url.replace("127.0.0.1", "localhost")).status_code == 200
    assert httpx.post(url, headers={"Host": "elsewhere.example"}, trust_env=False).status_code == 403
    assert signed("POST", f"{url.rsplit('/', 2)[0]}/{'x' * 32}/").status_code == 404
    assert signed("POST", url, b"x" * (6 * 2**20 + 1)).status_code == 413


def test_a_url_leads_to_an_alias_and_its_limits(aws_lambda: Lambda) -> None:
    client, name = aws_lambda.client, aws_lambda.create("def handler(e, c): return c.function_version")
    client.create_alias(FunctionName=name, Name="live", FunctionVersion=aws_lambda.publish(name))
    url = client.create_function_url_config(FunctionName=name, Qualifier="live", AuthType="AWS_IAM")["FunctionUrl"]
    assert signed("GET", url).json() == "1"
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    assert signed("GET", url).status_code == 429
    client.delete_function_url_config(FunctionName=name, Qualifier="live")
    assert signed("GET", url).status_code == 404


def test_a_url_answers_whose_policies_allow_both_actions(aws_lambda: Lambda) -> None:
    client, name = aws_lambda.client, aws_lambda.create("def handler(e, c): return 'called'")
    url = client.create_function_url_config(FunctionName=name, AuthType="AWS_IAM")["FunctionUrl"]
    iam, arn = boto3.client("iam"), client.get_function_configuration(FunctionName=name)["FunctionArn"]
    iam.create_user(UserName=name)
    made = iam.create_access_key(UserName=name)["AccessKey"]
    key = (made["AccessKeyId"], made["SecretAccessKey"])
    assert signed("GET", url, key=key).status_code == 403
    for actions, status in (
        (["lambda:InvokeFunctionUrl"], 403),
        (["lambda:InvokeFunctionUrl", "lambda:InvokeFunction"], 200),
    ):
        statement = {"Effect": "Allow", "Action": actions, "Resource": arn}
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_user_policy(UserName=name, PolicyName="call", PolicyDocument=document)
        assert signed("GET", url, key=key).status_code == status


def test_a_url_for_everybody_is_refused(aws_lambda: Lambda, echo: str) -> None:
    code, message = refused(aws_lambda.client.create_function_url_config, FunctionName=echo, AuthType="NONE")
    assert (code, "AuthType=NONE" in message) == ("InvalidParameterValueException", True)


# --- the function in front of an endpoint ---------------------------------------------------------------------------

SERVED = """
import json

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = b""
    while scope["path"] != "/ping":
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    status, top = 200, [{"label": "beagle", "probability": 0.9}, {"label": "pug", "probability": 0.1}]
    answer = {"label": "beagle", "probability": 0.9, "top_k": top, "model_version": "v-7"}
    if b"broken" in body:
        status, answer = 400, {"error": "the picture is broken"}
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

def create():
    return app
"""


def test_classify_image_asks_the_endpoint_and_nothing_else(aws_lambda: Lambda) -> None:
    cloud, name = aws_lambda.cloud, aws_lambda.cloud.outputs["FrontEndpointName"]
    deleted = cloud.sagemaker.get_waiter("endpoint_deleted")
    deleted.wait(EndpointName=name, WaiterConfig={"Delay": 1})  # of other tests
    source = (Path(__file__).parents[3] / "lambda" / "classify_image.py").read_text()
    config = cloud.config(cloud.package(**{"served.py": SERVED}))
    for endpoint in (name, "flows-another"):
        cloud.sagemaker.create_endpoint(EndpointName=endpoint, EndpointConfigName=config)
    for endpoint in (name, "flows-another"):
        cloud.endpoint_end(endpoint)
    cloud.put("uploads/a.png", b"\x89PNG\r\n\x1a\nfine")
    variables = {"ENDPOINT_NAME": name, "IMAGE_BUCKET": cloud.bucket, "IMAGE_PREFIX": "uploads/"}
    function = aws_lambda.create(
        Code={"ZipFile": package(classify_image=source)},
        Handler="classify_image.handler",
        Environment={"Variables": variables},
        Timeout=15,
    )
    for key, status, words in (("a", 200, '"label": "beagle"'), ("none", 400, "no object that can be read")):
        answer = aws_lambda.result(function, {"s3_key": f"uploads/{key}.png"})
        assert (answer["statusCode"], words in answer["body"]) == (status, True)
    url = aws_lambda.client.create_function_url_config(FunctionName=function, AuthType="AWS_IAM")["FunctionUrl"]
    broken = signed("POST", url, b"\xff\xd8\xffbroken", **{"content-type": "image/jpeg"})
    assert (broken.status_code, broken.json()["error"]) == (400, "the picture is broken")
    assert signed("GET", url).status_code == 405
    # Its role may ask this one endpoint, and no other of the flows.
    aws_lambda.client.update_function_configuration(
        FunctionName=function, Environment={"Variables": {**variables, "ENDPOINT_NAME": "flows-another"}}
    )
    aws_lambda.settled(function)
    assert aws_lambda.result(function, {"s3_key": "uploads/a.png"})["statusCode"] == 502
    for endpoint in (name, "flows-another"):
        cloud.sagemaker.delete_endpoint(EndpointName=endpoint)


# --- other clients, and the end -------------------------------------------------------------------------------------


def test_the_aws_command_line_invokes(echo: str, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    command = ["aws", "lambda", "invoke", "--function-name", echo, "--payload", '{"answer": "hi"}', str(out)]
    version = subprocess.run(["aws", "--version"], check=True, capture_output=True, text=True).stdout
    options = [] if version.startswith("aws-cli/1") else ["--cli-binary-format", "raw-in-base64-out"]
    finished = subprocess.run([*command, *options], check=True, capture_output=True, text=True, timeout=60)
    assert json.loads(finished.stdout)["StatusCode"] == 200
    assert json.loads(out.read_text()) == "hi"


def test_a_deleted_function_is_gone_with_its_processes(aws_lambda: Lambda) -> None:
    name = aws_lambda.create()
    pid = aws_lambda.result(name)["pid"]
    aws_lambda.client.delete_function(FunctionName=name)
    assert refused(aws_lambda.client.invoke, FunctionName=name)[0] == "ResourceNotFoundException"
    aws_lambda.cloud.until(lambda: is_running(pid), lambda running: not running)


def test_no_function_survives_a_local_aws_that_is_killed(tmp_path: Path) -> None:
    script = f"""
import boto3, json, pathlib, time
stack = boto3.client("cloudformation").describe_stacks(StackName="sagemaker-flows")["Stacks"][0]
role = next(one["OutputValue"] for one in stack["Outputs"] if one["OutputKey"] == "LambdaRoleArn")
client = boto3.client("lambda")
client.create_function(FunctionName="flows-f", Runtime="python3.13", Role=role, Handler="app.handler",
                       Code={{"ZipFile": {package(app=ECHO)!r}}})
client.get_waiter("function_active_v2").wait(FunctionName="flows-f", WaiterConfig={{"Delay": 0.1}})
answer = json.load(client.invoke(FunctionName="flows-f")["Payload"])
pathlib.Path({str(tmp_path)!r}, "pid").write_text(f"{{answer['pid']}}\\n")
time.sleep(600)
"""
    command = [sys.executable, "-m", "deployments.local_aws", "--administrator", "--root", str(tmp_path), "--"]
    local_aws = subprocess.Popen([*command, sys.executable, "-c", script], start_new_session=True)
    try:
        pid = int(wait_for(tmp_path / "pid"))
        local_aws.kill()
        local_aws.wait()
        deadline = time.monotonic() + 10
        while is_running(pid):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.killpg(local_aws.pid, 9)


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 60
    while not path.exists() or not path.read_text().endswith("\n"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return path.read_text()


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"

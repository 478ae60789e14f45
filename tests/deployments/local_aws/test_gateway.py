"""What the gateway does with a request once it knows who sent it, held against a small executor and against moto."""

import json
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import ClientError

from deployments.local_aws.gateway import Gateway
from deployments.local_aws.protocol import AwsError
from deployments.local_aws.server import LocalAws
from deployments.local_aws.services import INVOKE_ENDPOINT_MAX_BYTES, Catalogue, Service
from deployments.local_aws.signatures import SignatureCheck
from deployments.local_aws.wsgi_server import PortInUseError, listening

BUCKET = "gateway-tests"
WHEN = datetime(2026, 1, 31, 12, 0, 0, 250_000, tzinfo=UTC)


class Endpoints:
    """A small executor that remembers what it was asked."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []

    def describe_training_job(self, request: dict[str, Any]) -> dict[str, Any]:
        self.requests.append(request)
        return {
            "TrainingJobName": request["TrainingJobName"],
            "TrainingJobStatus": "InProgress",
            "CreationTime": WHEN,
            "HyperParameters": {"epochs": "3"},
            "NotInTheModel": 1,
        }

    def create_training_job(self, request: dict[str, Any]) -> dict[str, Any]:
        self.requests.append(request)
        return {"TrainingJobArn": f"arn:aws:sagemaker:us-east-1:123456789012:training-job/{request['TrainingJobName']}"}

    def stop_training_job(self, request: dict[str, Any]) -> dict[str, Any]:
        code, message = "ResourceNotFound", f"No training job {request['TrainingJobName']}"
        raise AwsError(code, message)

    def list_models(self, _request: dict[str, Any]) -> dict[str, Any]:
        self.requests.append({})
        return {"Models": 1 / 0}

    def invoke_endpoint(self, request: dict[str, Any]) -> dict[str, Any]:
        self.requests.append(request)
        if request["Body"] == b"fail":
            code, message = "ModelError", "Received server error (500) from primary"
            raise AwsError(code, message, 424, {"OriginalStatusCode": 500, "OriginalMessage": "boom"})
        return {"Body": request["Body"][::-1], "ContentType": "text/csv", "InvokedProductionVariant": "primary"}


@pytest.fixture(scope="module")
def executor() -> Endpoints:
    return Endpoints()


@pytest.fixture(scope="module")
def url(local_aws: LocalAws, executor: Endpoints) -> Iterator[str]:
    """Return a second gateway over the same account, with the small executor in it."""
    control = Service(
        "sagemaker",
        {
            "DescribeTrainingJob": executor.describe_training_job,
            "CreateTrainingJob": executor.create_training_job,
            "StopTrainingJob": executor.stop_training_job,
            "ListModels": executor.list_models,
        },
    )
    runtime = Service(
        "sagemaker-runtime", {"InvokeEndpoint": executor.invoke_endpoint}, max_body_bytes=INVOKE_ENDPOINT_MAX_BYTES
    )
    catalogue = Catalogue({"sagemaker": (control, runtime)}, lambda: None)
    check = SignatureCheck(local_aws.account.find_credentials, local_aws.account.region)
    with listening(Gateway(check, catalogue)) as address:
        yield address


@pytest.fixture(scope="module")
def sagemaker(url: str) -> Any:
    """Return a client that checks nothing itself, so that what is wrong reaches the gateway."""
    return boto3.client("sagemaker", endpoint_url=url, config=Config(parameter_validation=False))


@pytest.fixture(scope="module")
def runtime(url: str) -> Any:
    return boto3.client("sagemaker-runtime", endpoint_url=url, config=Config(parameter_validation=False))


@pytest.fixture(scope="module")
def s3(local_aws: LocalAws) -> Any:
    client = local_aws.account.client("s3")
    client.create_bucket(Bucket=BUCKET)
    return client


def training_job(**changes: Any) -> dict[str, Any]:
    request: dict[str, Any] = {
        "TrainingJobName": "digits-1",
        "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
        "RoleArn": "arn:aws:iam::123456789012:role/training",
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/jobs"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    }
    return request | changes


def test_an_operation_gets_the_members_of_the_request(sagemaker: Any, executor: Endpoints) -> None:
    request = training_job(HyperParameters={"epochs": "3"}, Tags=[{"Key": "a", "Value": "é"}])
    assert sagemaker.create_training_job(**request)["TrainingJobArn"].endswith("/digits-1")
    assert executor.requests[-1] == request


def test_a_result_is_written_as_the_model_says(sagemaker: Any) -> None:
    result = sagemaker.describe_training_job(TrainingJobName="digits-1")
    assert result["CreationTime"] == WHEN
    assert result["HyperParameters"] == {"epochs": "3"}
    assert "NotInTheModel" not in result


def test_an_executors_error_reaches_the_client_whole(sagemaker: Any) -> None:
    with pytest.raises(ClientError) as failure:
        sagemaker.stop_training_job(TrainingJobName="gone")
    assert failure.value.response["Error"] == {"Code": "ResourceNotFound", "Message": "No training job gone"}
    assert isinstance(failure.value, sagemaker.exceptions.ResourceNotFound)


def test_an_operation_without_an_executor_is_refused_by_name(sagemaker: Any) -> None:
    """Where moto would answer that all is well."""
    with pytest.raises(ClientError, match="does not implement sagemaker:ListProcessingJobs") as failure:
        sagemaker.list_processing_jobs()
    assert failure.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_a_defect_in_an_executor_is_not_tried_again(sagemaker: Any, executor: Endpoints) -> None:
    """A client repeats a 500, and the operation may be half done."""
    before = len(executor.requests)
    with pytest.raises(ClientError, match="ZeroDivisionError"):
        sagemaker.list_models()
    assert len(executor.requests) == before + 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"TrainingJobName": "under_score"},
            "1 validation error detected: Value 'under_score' at 'trainingJobName' failed to satisfy constraint: ",
        ),
        ({"RoleArn": None}, "Value null at 'roleArn' failed to satisfy constraint: Member must not be null"),
        (
            {"TrainingJobName": "x" * 64},
            "at 'trainingJobName' failed to satisfy constraint: Member must have length less than or equal to 63",
        ),
        (
            {"ResourceConfig": {"InstanceType": "ml.huge", "InstanceCount": 1, "VolumeSizeInGB": 10}},
            "Value 'ml.huge' at 'resourceConfig.instanceType' failed to satisfy constraint: Member must satisfy enum",
        ),
        (
            {"ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": -1, "VolumeSizeInGB": 10}},
            "Value '-1' at 'resourceConfig.instanceCount' failed to satisfy constraint: Member must have value greater",
        ),
        (
            {"InputDataConfig": [{"ChannelName": "a b", "DataSource": {}}]},
            "at 'inputDataConfig.1.member.channelName' failed to satisfy constraint: Member must satisfy regular",
        ),
        ({"HyperParameters": {"lr": "1" * 2501}}, "at 'hyperParameters.lr.member' failed to satisfy constraint"),
        ({"HyperParameters": {"lr": 0.1}}, "Member must be a string"),
        ({"EnableManagedSpotTraining": "yes"}, "Member must be a boolean"),
        ({"ResourceConfig": {"InstanceKind": "ml.m5.large"}}, "no member ResourceConfig.InstanceKind"),
    ],
)
def test_what_breaks_a_constraint_is_refused_in_awss_words(url: str, changes: dict[str, Any], message: str) -> None:
    """Sent as raw JSON: botocore would turn half of these into what they should be."""
    request = {name: value for name, value in training_job(**changes).items() if value is not None}
    answer = post_json(url, "CreateTrainingJob", request)
    assert answer.status_code == 400
    assert message in answer.json()["message"]


def test_every_violation_is_counted(url: str) -> None:
    answer = post_json(url, "CreateTrainingJob", training_job(TrainingJobName="a_b", RoleArn="me"))
    assert answer.json()["__type"] == "ValidationException"
    assert answer.json()["message"].startswith("2 validation errors detected: ")


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b'"text"'])
def test_a_body_that_is_no_json_object_is_refused(url: str, body: bytes) -> None:
    answer = post_json(url, "CreateTrainingJob", body)
    assert (answer.status_code, answer.json()["__type"]) == (400, "SerializationException")


def post_json(url: str, operation: str, content: Any) -> httpx.Response:
    """Sign and send any content to an operation of SageMaker."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    headers = {"X-Amz-Target": f"SageMaker.{operation}", "Content-Type": "application/x-amz-json-1.1"}
    request = AWSRequest("POST", f"{url}/", headers, body)
    SigV4Auth(boto3.Session().get_credentials(), "sagemaker", "us-east-1").add_auth(request)
    return httpx.post(f"{url}/", headers=dict(request.headers.items()), content=body)


@pytest.mark.parametrize("content_type", ["image/png", "application/json", "application/x-www-form-urlencoded"])
def test_invoke_endpoint_passes_bytes_and_headers_through(runtime: Any, executor: Endpoints, content_type: str) -> None:
    answer = runtime.invoke_endpoint(EndpointName="e", Body=b"\x00\xffab", ContentType=content_type, Accept="text/csv")
    assert answer["Body"].read() == b"ba\xff\x00"
    assert (answer["ContentType"], answer["InvokedProductionVariant"]) == ("text/csv", "primary")
    assert executor.requests[-1] == {
        "EndpointName": "e",
        "Body": b"\x00\xffab",
        "ContentType": content_type,
        "Accept": "text/csv",
    }


def test_an_empty_body_is_the_models_to_judge(runtime: Any, executor: Endpoints) -> None:
    runtime.invoke_endpoint(EndpointName="e", Body=b"")
    assert executor.requests[-1]["Body"] == b""


def test_a_model_error_carries_what_the_model_said(runtime: Any) -> None:
    with pytest.raises(runtime.exceptions.ModelError) as failure:
        runtime.invoke_endpoint(EndpointName="e", Body=b"fail")
    assert failure.value.response["OriginalStatusCode"] == 500
    assert failure.value.response["OriginalMessage"] == "boom"
    assert failure.value.response["ResponseMetadata"]["HTTPStatusCode"] == 424


def test_invoke_endpoint_takes_25_mb_and_no_more(runtime: Any) -> None:
    assert runtime.invoke_endpoint(EndpointName="e", Body=b"a" * INVOKE_ENDPOINT_MAX_BYTES)
    with pytest.raises(ClientError, match=r"\(413\).*HTTP content length exceeded 26214400 bytes"):
        runtime.invoke_endpoint(EndpointName="e", Body=b"a" * (INVOKE_ENDPOINT_MAX_BYTES + 1))


def test_the_runtime_names_its_validation_error_its_own_way(runtime: Any) -> None:
    with pytest.raises(runtime.exceptions.ValidationError, match="endpointName"):
        runtime.invoke_endpoint(EndpointName="a_b", Body=b"")


@pytest.mark.parametrize(
    ("service", "call", "asked"),
    [
        ("sqs", "list_queues", "sqs:ListQueues"),
        ("ec2", "reboot_instances", "ec2:RebootInstances"),
        ("lambda", "list_layers", "lambda:ListLayers"),
        ("sns", "list_topics", "sns:ListTopics"),
        ("route53", "list_hosted_zones", "route53:GET /2013-04-01/hostedzone"),
        ("cloudwatch", "put_dashboard", "NotImplemented|InvalidParameter"),
        ("sts", "get_session_token", "sts:GetSessionToken"),
    ],
)
@pytest.mark.usefixtures("local_aws")
def test_a_service_that_is_not_here_says_so_in_its_own_protocol(service: str, call: str, asked: str) -> None:
    """moto has most of them, and would pretend."""
    client: Any = boto3.client(service, config=Config(parameter_validation=False))  # type: ignore[call-overload]
    with pytest.raises(ClientError, match=asked):
        getattr(client, call)()


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("list_bucket_metrics_configurations", {}),
        ("get_bucket_request_payment", {}),
        ("put_bucket_notification_configuration", {"NotificationConfiguration": {}}),
        ("get_object_torrent", {"Key": "a"}),
    ],
)
def test_what_motos_s3_would_pretend_is_refused(s3: Any, call: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ClientError, match="NotImplemented") as failure:
        getattr(s3, call)(Bucket=BUCKET, **arguments)
    assert failure.value.response["ResponseMetadata"]["RetryAttempts"] == 0


def test_what_breaks_moto_is_an_error_that_is_not_repeated(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """moto answers NotImplementedError with a page of HTML and status 500."""

    def broken(*_arguments: Any, **_members: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr("moto.s3.models.S3Backend.list_objects_v2", broken)
    with pytest.raises(ClientError, match="NotImplemented") as failure:
        s3.list_objects_v2(Bucket=BUCKET)
    assert failure.value.response["ResponseMetadata"]["RetryAttempts"] == 0


@pytest.mark.parametrize("key", ["plain", "a b+c", "ä/ö", "per%2Fcent", "a//b", "~t.i_l-d,e", "q?u&e=r#y", "x/"])
def test_any_key_can_be_written_and_read(s3: Any, key: str) -> None:
    s3.put_object(Bucket=BUCKET, Key=key, Body=key.encode())
    assert s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == key.encode()
    assert key in [item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET)["Contents"]]


def test_metadata_keeps_underscores_in_its_names(s3: Any) -> None:
    """waitress drops such headers, and they are signed."""
    s3.put_object(Bucket=BUCKET, Key="m", Body=b"m", Metadata={"run_id": "1", "Flow-Run": "2"})
    assert s3.head_object(Bucket=BUCKET, Key="m")["Metadata"] == {"run_id": "1", "flow-run": "2"}


def test_an_empty_object_is_written_at_once(s3: Any) -> None:
    """botocore announces even an empty body with Expect: 100-continue, and waitress would wait for it for ever."""
    s3.put_object(Bucket=BUCKET, Key="empty", Body=b"")
    assert s3.get_object(Bucket=BUCKET, Key="empty")["Body"].read() == b""


def test_a_missing_object_is_not_found_by_head_too(s3: Any) -> None:
    with pytest.raises(ClientError, match="404"):
        s3.head_object(Bucket=BUCKET, Key="missing")


@pytest.mark.parametrize("checksum", ["CRC32", "SHA256"])
def test_streamed_uploads_with_trailing_checksums_are_read(s3: Any, tmp_path: Path, checksum: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(100_000))
    s3.upload_file(str(path), BUCKET, "streamed", ExtraArgs={"ChecksumAlgorithm": checksum})
    assert s3.get_object(Bucket=BUCKET, Key="streamed")["Body"].read() == path.read_bytes()


def aws(*arguments: str) -> str:
    """Run the aws command line in the test's environment."""
    finished = subprocess.run(["aws", *arguments], check=False, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_the_aws_command_line_syncs_a_folder(s3: Any, tmp_path: Path) -> None:
    for number in range(40):
        path = tmp_path / "from" / f"class {number % 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(300))
        os.utime(path, (0, 0))  # S3 says times in whole seconds: a file of this very second would seem newer
    aws("s3", "sync", str(tmp_path / "from"), f"s3://{BUCKET}/sync")
    aws("s3", "sync", f"s3://{BUCKET}/sync", str(tmp_path / "to"))
    for path in (tmp_path / "from").rglob("*.png"):
        assert (tmp_path / "to" / path.relative_to(tmp_path / "from")).read_bytes() == path.read_bytes()
    assert not aws("s3", "sync", str(tmp_path / "from"), f"s3://{BUCKET}/sync")
    assert s3.list_objects_v2(Bucket=BUCKET, Prefix="sync/")["KeyCount"] == 40


def test_the_aws_command_line_copies_a_large_file_in_parts(s3: Any, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(os.urandom(20 * 1024 * 1024))
    aws("s3", "cp", str(tmp_path / "large"), f"s3://{BUCKET}/large")
    assert "-" in s3.head_object(Bucket=BUCKET, Key="large")["ETag"]  # the mark of a multipart upload
    aws("s3", "cp", f"s3://{BUCKET}/large", str(tmp_path / "again"))
    assert (tmp_path / "again").read_bytes() == (tmp_path / "large").read_bytes()


@pytest.mark.usefixtures("local_aws")
def test_the_aws_command_line_knows_who_it_is() -> None:
    assert ":user/administrator" in aws("sts", "get-caller-identity")


def test_a_taken_port_is_named() -> None:
    with (
        listening(lambda _environ, _start: []) as url,
        pytest.raises(PortInUseError, match=url.rpartition(":")[2]),
        listening(lambda _environ, _start: [], int(url.rpartition(":")[2])),
    ):
        pass


def test_a_server_that_was_closed_gives_its_port_back() -> None:
    with listening(lambda _environ, _start: []) as url:
        port = int(url.rpartition(":")[2])
    with listening(lambda _environ, _start: [], port) as again:
        assert again == url

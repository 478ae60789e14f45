"""Small programs and packages for the local AWS to run: no torch, so that a job takes a fraction of a second."""

import io
import json
import tarfile
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import boto3
import pytest

_numbers = count()

APP = """
import os

async def app(scope, receive, send):
    body = b""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    while scope["path"] != "/ping":
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    status, answer = 200, os.environ.get("GREETING", "hello").encode() + b" " + body
    if body == b"refuse":
        status, answer = 415, b"only pictures"
    if body == b"crash":
        os._exit(3)
    if body == b"pid":
        answer = str(os.getpid()).encode()
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": answer})

def create():
    return app
"""
CONFIG = "applications: [{name: a, route_prefix: /, import_path: 'served:app', args: {asgi_app: 'served:create'}}]"


def tar_gz(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


class Cloud:
    """The local AWS as a test uses it: the foundation's outputs, and requests that are complete."""

    def __init__(self) -> None:
        stack = boto3.client("cloudformation").describe_stacks(StackName="sagemaker-flows")["Stacks"][0]
        self.outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
        self.bucket = self.outputs["BucketName"]
        self.sagemaker = boto3.client("sagemaker")
        self.s3 = boto3.client("s3")
        self.logs = boto3.client("logs")

    def name(self, kind: str) -> str:
        return f"test-{kind}-{next(_numbers)}"

    def put(self, key: str, body: bytes) -> str:
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)
        return f"s3://{self.bucket}/{key}"

    def program(self, script: str, **files: str) -> str:
        return self.put(f"code/{self.name('program')}.tar.gz", tar_gz({"train.py": script, **files}))

    def channel(self, name: str, uri: str, **source: str) -> dict[str, Any]:
        return {
            "ChannelName": name,
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri, **source}},
        }

    def job_request(self, program: str, **changes: Any) -> dict[str, Any]:
        hyperparameters = {"sagemaker_program": '"train.py"', "sagemaker_submit_directory": json.dumps(program)}
        return {
            "TrainingJobName": self.name("job"),
            "AlgorithmSpecification": {"TrainingImage": "pytorch", "TrainingInputMode": "File"},
            "RoleArn": self.outputs["TrainingRoleArn"],
            "HyperParameters": hyperparameters | changes.pop("HyperParameters", {}),
            "OutputDataConfig": {"S3OutputPath": f"s3://{self.bucket}/jobs"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 60},
            **changes,
        }

    def run_job(self, script: str, **changes: Any) -> dict[str, Any]:
        request = self.job_request(self.program(script), **changes)
        self.sagemaker.create_training_job(**request)
        return self.job_end(request["TrainingJobName"])

    def job_end(self, name: str) -> dict[str, Any]:
        describe = self.sagemaker.describe_training_job
        return self.until(
            lambda: describe(TrainingJobName=name),
            lambda job: job["TrainingJobStatus"] in ("Completed", "Failed", "Stopped"),
        )

    def until(self, look: Callable[[], Any], done: Callable[[Any], bool], seconds: float = 30) -> Any:
        deadline = time.monotonic() + seconds
        while not done(seen := look()):
            assert time.monotonic() < deadline, f"still {seen}"
            time.sleep(0.02)
        return seen

    def lines(self, group: str, stream_prefix: str) -> list[str]:
        streams = self.logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=stream_prefix)["logStreams"]
        found: list[str] = []
        for stream in streams:
            events = self.logs.get_log_events(
                logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True
            )
            found += [event["message"] for event in events["events"]]
        return found

    def files_in(self, uri: str) -> dict[str, bytes]:
        bucket, key = uri.removeprefix("s3://").split("/", 1)
        body = self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        with tarfile.open(fileobj=io.BytesIO(body)) as tar:
            return {m.name: (tar.extractfile(m) or io.BytesIO()).read() for m in tar.getmembers()}

    def package(self, **files: str) -> str:
        content = {"config.yaml": CONFIG, "served.py": APP, **files}
        return self.put(f"jobs/{self.name('package')}.tar.gz", tar_gz(content))

    def config(self, package: str, count: int = 1, greeting: str = "hello") -> str:
        name = self.name("config")
        self.sagemaker.create_model(
            ModelName=name,
            PrimaryContainer={"Image": "ray", "ModelDataUrl": package, "Environment": {"GREETING": greeting}},
            ExecutionRoleArn=self.outputs["EndpointRoleArn"],
        )
        variant = {
            "VariantName": "v",
            "ModelName": name,
            "InstanceType": "ml.m5.large",
            "InitialInstanceCount": count,
            "InitialVariantWeight": 1.0,
        }
        self.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        return name

    def endpoint(self, config: str) -> dict[str, Any]:
        name = self.name("endpoint")
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
        return self.endpoint_end(name)

    def endpoint_end(self, name: str) -> dict[str, Any]:
        return self.until(
            lambda: self.sagemaker.describe_endpoint(EndpointName=name),
            lambda endpoint: endpoint["EndpointStatus"] in ("InService", "Failed"),
        )


@pytest.fixture(scope="session")
def cloud(local_aws: object) -> Cloud:
    return Cloud()

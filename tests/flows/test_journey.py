"""The whole journey on real pictures: upload, tune, train three ways, deploy, ask, compare, report, tear down; and all
of it again."""

import json
import re
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from deployments.local_aws.usage import unused_actions
from tasks.aws.settings import load_settings
from tasks.contracts import RunReport
from tasks.datasets import load_dataset, load_manifest
from tasks.endpoints import invoke

pytestmark = pytest.mark.slow

# A small journey: what is small in it is time, not steps.
SMALL = (
    *("--hyperparameters.epochs", "8"),
    *("--tuning.trials", "3", "--tuning.epochs", "2", "--tuning.search.batch-size", "32", "64"),
    *("--several.instance-count", "2"),
    *("--traffic.requests-per-second", "1", "--traffic.peak-requests-per-second", "5"),
    *("--traffic.seconds-per-level", "1", "--traffic.most-callers", "2", "--traffic.p99-ms", "60000"),
)

AWS_IMAGES = {"SAGEMAKER_FLOWS_TRAINING_IMAGE": None, "SAGEMAKER_FLOWS_SERVING_IMAGE": None}


@pytest.fixture(scope="module")
def journey(run_flow: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A first `operationalize`, with AWS's own images: what it printed, and where its report is."""
    reports = tmp_path_factory.mktemp("reports")
    result = run_flow("operationalize", *SMALL, "--reports-folder", str(reports), environment=AWS_IMAGES)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout, next(reports.iterdir())


@pytest.fixture(scope="module")
def facts(journey: tuple[str, Path]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((journey[1] / "report.json").read_text())
    return content


def alone(facts: dict[str, Any]) -> dict[str, Any]:
    """The training on a single instance."""
    training: dict[str, Any] = facts["comparison"]["trainings"][0]
    return training


@pytest.fixture(scope="module")
def endpoint(run_flow: Any, facts: dict[str, Any]) -> str:
    """The model of the journey, deployed again by its own flow."""
    result = run_flow("deploy_endpoint", alone(facts)["job"]["model_s3_uri"])
    assert result.returncode == 0, result.stderr[-3000:]
    name: str = result.stdout.strip().splitlines()[-1]
    return name


def test_it_prints_what_was_made_how_good_it_is_what_it_cost_and_what_is_gone(journey: tuple[str, Path]) -> None:
    steps = ("Dataset    s3://", "Tuning", "Training", "Endpoint", "Live", "Front", "Scaling")
    for words in (*steps, "Cost on AWS", "Torn down", "Report"):
        assert words in journey[0]
    assert len(re.findall(r"digit-\d+\.png: \d \(\d+\.\d%\), true \d", journey[0])) == 16
    assert len(re.findall(r"% of 359 test pictures right", journey[0])) == 3


def test_every_way_of_training_is_accurate(facts: dict[str, Any]) -> None:
    for row in facts["comparison"]["rows"]:
        assert row["test_accuracy"] >= 0.95


def test_the_best_trial_is_what_the_trainings_were_given(facts: dict[str, Any]) -> None:
    tuning = facts["tuning"]
    assert len(tuning["trials"]) == 3
    best = min(tuning["trials"], key=lambda trial: trial["objective"])
    assert tuning["best"] == best
    described = boto3.client("sagemaker").describe_training_job(TrainingJobName=alone(facts)["job"]["name"])
    for name, value in best["hyperparameters"].items():
        assert float(json.loads(described["HyperParameters"][name])) == float(json.loads(value))
    assert described["HyperParameters"]["epochs"] == "8"


def test_the_ways_are_compared_by_where_their_time_went(facts: dict[str, Any]) -> None:
    rows = facts["comparison"]["rows"]
    assert [row["way"] for row in rows] == ["single instance", "several instances", "EC2"]
    for row in rows:
        assert row["training_seconds"] > 0
        assert row["download_seconds"] > 0
        assert row["cost_usd"] > 0
        assert row["images_per_second"] > 0


def test_several_instances_made_one_model(facts: dict[str, Any]) -> None:
    several = facts["comparison"]["trainings"][1]
    assert several["job"]["instance_count"] == 2
    described = boto3.client("sagemaker").describe_training_job(TrainingJobName=several["job"]["name"])
    assert described["ResourceConfig"]["InstanceCount"] == 2


def test_the_instance_is_gone_and_what_it_made_is_there(facts: dict[str, Any]) -> None:
    job = facts["comparison"]["trainings"][2]["job"]
    instance = boto3.client("ec2").describe_instances(InstanceIds=[job["arn"].rpartition("/")[2]])
    assert instance["Reservations"][0]["Instances"][0]["State"]["Name"] in ("shutting-down", "terminated")
    bucket, _, key = job["model_s3_uri"].removeprefix("s3://").partition("/")
    assert boto3.client("s3").head_object(Bucket=bucket, Key=key)["ContentLength"] > 0


def test_the_page_carries_its_pictures_and_the_facts_no_picture(journey: tuple[str, Path]) -> None:
    assert (journey[1] / "report.html").read_text().count("data:image/png;base64,") >= 12
    assert '"body"' not in (journey[1] / "report.json").read_text()


def test_the_facts_are_what_the_contract_says(facts: dict[str, Any]) -> None:
    live = facts["live"]
    for answering in (*facts["comparison"]["deployments"], live["deployment"], live["front"]):
        for sample in answering["answers"]:
            sample["image"]["body"] = ""
    assert RunReport.model_validate_json(json.dumps(facts))


def test_every_step_left_an_artifact(journey: tuple[str, Path], prefect_api: httpx.Client) -> None:
    found = prefect_api.post("/artifacts/filter", json={"limit": 200}).raise_for_status().json()
    keys = {artifact["key"] for artifact in found}
    steps = {"dataset", "tuning", "endpoint", "comparison", "costs", "final-report"}
    steps |= {"front", "scaling", "scaling-recommendation"}
    trainings = {"training-single-instance", "training-several-instances", "training-ec2"}
    assert keys >= steps | trainings | {"upload-progress", "tuning-progress", "training-progress", "ec2-progress"}
    progress = [artifact["data"] for artifact in found if artifact["key"] == "training-progress"]
    assert set(progress) == {100.0}


def test_others_are_told_of_what_is_new(facts: dict[str, Any], assert_told: Callable[[str, set[str]], None]) -> None:
    assert_told("dataset.uploaded", {facts["upload"]["dataset"]["name"]})
    assert_told("model.trained", {one["job"]["name"] for one in facts["comparison"]["trainings"]})
    assert_told("endpoint.deployed", {one["endpoint"]["name"] for one in facts["comparison"]["deployments"]})


def test_nothing_is_left_in_service(facts: dict[str, Any]) -> None:
    names = [endpoint["EndpointName"] for endpoint in boto3.client("sagemaker").list_endpoints()["Endpoints"]]
    for deployment in facts["comparison"]["deployments"]:
        assert deployment["endpoint"]["name"] not in names
    assert len(facts["comparison"]["deleted"]) == 6
    assert "endpoint flows-live" in facts["live"]["deleted"]
    fronts = [one["FunctionName"] for one in boto3.client("lambda").list_functions()["Functions"]]
    assert "flows-classify-image" not in fronts


@pytest.fixture(scope="module")
def relaunched(run_flow: Any, facts: dict[str, Any]) -> list[str]:
    """One model goes live, then another in its place with another function, and all is taken down: what was printed."""
    manifest = facts["upload"]["dataset"]["manifest_s3_uri"]
    first, second = (training["job"]["model_s3_uri"] for training in facts["comparison"]["trainings"][:2])
    warm = ("--front.reserved-concurrency", "2", "--front.provisioned-concurrency", "1")
    at_once = ("--rollout.shift", "all at once", "--rollout.bake-seconds", "0")
    results = [
        run_flow("go_live", first, manifest),
        run_flow("go_live", second, manifest, *at_once, *warm, "--front.timeout-seconds", "25"),
        run_flow("teardown", "--endpoint", "flows-live", "--front", "flows-classify-image"),
    ]
    assert [result.returncode for result in results] == [0, 0, 0], [result.stderr[-2000:] for result in results]
    return [result.stdout for result in results]


def test_a_second_model_goes_live_in_the_place_of_the_first(relaunched: list[str]) -> None:
    assert "flows-live (created)" in relaunched[0]
    assert "flows-live (updated)" in relaunched[1]
    assert "version 2 (updated)" in relaunched[1]
    assert "deleted endpoint flows-live" in relaunched[2]
    assert "deleted function flows-classify-image" in relaunched[2]


def test_everything_carries_its_owner_and_its_expiry(facts: dict[str, Any]) -> None:
    tags = boto3.client("sagemaker").list_tags(ResourceArn=alone(facts)["job"]["arn"])["Tags"]
    assert {tag["Key"] for tag in tags} == {
        "project",
        "sagemaker-flows:digest",
        "sagemaker-flows:flow-run",
        "sagemaker-flows:expires-at",
    }


def test_the_second_time_nothing_is_sent_and_all_work_is_reused_for_nothing(
    run_flow: Any, facts: dict[str, Any]
) -> None:
    jobs = boto3.client("sagemaker").list_training_jobs(MaxResults=100)["TrainingJobSummaries"]
    result = run_flow("operationalize", *SMALL, "--gate.most-hourly-usd", "0.01", environment=AWS_IMAGES)
    assert "0 of them sent now" in result.stdout
    assert "the model is not put into service, decided by thresholds" in result.stdout
    assert f"{alone(facts)['job']['name']} (reused)" in result.stdout
    assert re.search(r"training, single instance: \$0\.0000 .*completed before, \$0\.\d+ saved", result.stdout)
    assert result.stdout.count("(reused)") == 4
    assert len(boto3.client("sagemaker").list_training_jobs(MaxResults=100)["TrainingJobSummaries"]) == len(jobs)


def test_fresh_asks_for_a_new_job(run_flow: Any, facts: dict[str, Any]) -> None:
    manifest = facts["upload"]["dataset"]["manifest_s3_uri"]
    result = run_flow("train_single_instance", manifest, "--hyperparameters.epochs", "1", "--fresh")
    assert result.returncode == 0, result.stderr[-2000:]
    again = run_flow("train_single_instance", manifest, "--hyperparameters.epochs", "1", "--fresh")
    assert result.stdout != again.stdout


def test_two_runs_at_once_train_once(run_flow: Any, facts: dict[str, Any]) -> None:
    """Who comes second adopts the job of who came first; nobody pays twice."""
    arguments = [
        "train_single_instance",
        facts["upload"]["dataset"]["manifest_s3_uri"],
        "--hyperparameters.epochs",
        "3",
    ]
    results: list[subprocess.CompletedProcess[str]] = []
    runs = [threading.Thread(target=lambda: results.append(run_flow(*arguments))) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert [result.returncode for result in results] == [0, 0]
    assert results[0].stdout == results[1].stdout


def test_the_endpoint_answers_what_was_predicted_offline_for_every_test_picture(
    endpoint: str, facts: dict[str, Any]
) -> None:
    dataset = load_dataset.fn(facts["upload"]["dataset"]["manifest_s3_uri"])
    offline = {p["file"]: p for p in alone(facts)["report"]["test"]["predictions"]}
    files = [file for file in load_manifest.fn(dataset) if file.split == "test"]
    assert len(files) == len(offline) == 359
    s3 = boto3.client("s3")
    for file in files:
        body = s3.get_object(Bucket=dataset.bucket, Key=file.key)["Body"].read()
        answer = invoke(endpoint, file_as_image(file.name, file.label, body))
        expected = offline[file.key.split("/files/")[1]]
        assert answer.label == expected["predicted"]
        assert answer.probability == pytest.approx(expected["probability"], abs=1e-4)


def file_as_image(name: str, label: str, body: bytes) -> Any:
    from tasks.contracts import LabelledImage

    return LabelledImage(name=name, label=label, body=body)


def refusal(endpoint: str, body: bytes, content_type: str) -> tuple[int, str]:
    runtime = boto3.client("sagemaker-runtime")
    with pytest.raises(runtime.exceptions.ModelError) as caught:
        runtime.invoke_endpoint(EndpointName=endpoint, Body=body, ContentType=content_type)
    answer = caught.value.response
    return answer["OriginalStatusCode"], answer["OriginalMessage"]


def test_the_endpoint_refuses_what_is_no_picture_in_one_sentence(endpoint: str) -> None:
    status, words = refusal(endpoint, b"this is text, whatever its name says", "image/jpeg")
    assert status == 400
    assert "Traceback" not in words
    assert refusal(endpoint, b"", "image/png")[0] == 400
    assert refusal(endpoint, b"%PDF-1.7", "application/pdf")[0] == 415


def test_the_endpoint_refuses_a_picture_of_400_megapixels_without_decoding_it(endpoint: str, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    status, words = refusal(endpoint, (tmp_path / "bomb.png").read_bytes(), "image/png")
    assert status in (400, 413)
    assert "pixels" in words


def test_the_services_own_limit_stops_30_megabytes(endpoint: str) -> None:
    runtime = boto3.client("sagemaker-runtime")
    with pytest.raises(runtime.exceptions.ClientError) as caught:
        runtime.invoke_endpoint(EndpointName=endpoint, Body=b"x" * 30_000_000, ContentType="image/png")
    assert "26214400 bytes" in caught.value.response["Error"]["Message"]


def test_teardown_says_what_would_go_then_takes_it_and_leaves_what_is_not_ours(
    run_flow: Any, endpoint: str, facts: dict[str, Any]
) -> None:
    sagemaker = boto3.client("sagemaker")
    config = sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointConfigName"]
    sagemaker.create_endpoint(EndpointName="flows-but-not-ours", EndpointConfigName=config)
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="flows-but-not-ours", WaiterConfig={"Delay": 1})
    assert f"would delete endpoint {endpoint}" in run_flow("teardown", "--dry-run").stdout
    assert f"deleted endpoint {endpoint}" in run_flow("teardown").stdout
    refused = run_flow("teardown", "--endpoint", "flows-but-not-ours")
    assert refused.returncode == 1
    assert "does not carry the tag" in refused.stderr
    # Endpoints of other tests have other names.
    named = sagemaker.list_endpoints(NameContains="flows-")["Endpoints"]
    names = [endpoint["EndpointName"] for endpoint in named]
    assert names == ["flows-but-not-ours"]
    sagemaker.delete_endpoint(EndpointName="flows-but-not-ours")
    assert load_settings().bucket


# What the policies grant beyond what this file uses, and why.
_SENT_BY_SAGEMAKER = {
    "cloudwatch:PutMetricData",
    "ecr:BatchCheckLayerAvailability",
    "ecr:BatchGetImage",
    "ecr:GetAuthorizationToken",
    "ecr:GetDownloadUrlForLayer",
    "logs:DescribeLogStreams",
    "s3:GetBucketLocation",
}
_WHEN_AN_UPLOAD_BREAKS = {"s3:AbortMultipartUpload"}
NOT_USED_HERE = {
    "WorkerPolicy": {
        # When a run is cancelled, or fails.
        *("sagemaker:StopHyperParameterTuningJob", "sagemaker:StopTrainingJob", "ssm:CancelCommand"),
        # When an endpoint is there already.
        "sagemaker:UpdateEndpoint",
        # By reap_orphans and refresh_prices, whose tests are files of their own.
        *("sts:AssumeRole", "pricing:GetProducts"),
        # Once in an account's life.
        "iam:CreateServiceLinkedRole",
    },
    "FrontPolicy": {
        # When a first version does not answer; when the code has changed.
        *("lambda:DeleteAlias", "lambda:UpdateFunctionCode"),
        # What AWS asks for besides, when tags are given or told.
        *("application-autoscaling:TagResource", "lambda:ListTags"),
        # With a schedule, or when what is scaled changes its instance type.
        *("application-autoscaling:PutScheduledAction", "application-autoscaling:DeleteScheduledAction"),
        "application-autoscaling:ListTagsForResource",
        # Sent with the rights of who asks, by services that here act on their own.
        *("cloudwatch:DescribeAlarms", "sagemaker:UpdateEndpointWeightsAndCapacities"),
        # Once in an account's life.
        "iam:CreateServiceLinkedRole",
    },
    # Only a front that takes S3 keys reads pictures; the local AWS writes its log itself.
    "LambdaRole": {"s3:GetObject", "logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"},
    "TrainingRole": _SENT_BY_SAGEMAKER | _WHEN_AN_UPLOAD_BREAKS,
    # The local AWS writes the logs of endpoints itself, and finds a model without listing.
    "EndpointRole": _SENT_BY_SAGEMAKER
    | {
        "cloudwatch:DescribeAlarms",
        "logs:CreateLogGroup",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "s3:ListBucket",
    },
    # Sent by the SSM agent, which here is a part of the local AWS.
    "InstanceRole": _WHEN_AN_UPLOAD_BREAKS
    | {
        *("ec2messages:AcknowledgeMessage", "ec2messages:DeleteMessage", "ec2messages:FailMessage"),
        *("ec2messages:GetEndpoint", "ec2messages:GetMessages", "ec2messages:SendReply"),
        *("logs:DescribeLogGroups", "logs:DescribeLogStreams", "s3:GetBucketLocation", "s3:PutObjectAcl"),
        *("ssm:UpdateInstanceInformation", "ssmmessages:CreateControlChannel", "ssmmessages:OpenControlChannel"),
    },
}


@pytest.mark.usefixtures("facts", "endpoint", "relaunched")
@pytest.mark.parametrize("name", sorted(NOT_USED_HERE))
def test_a_policy_grants_nothing_that_no_flow_uses(local_aws: Any, name: str) -> None:
    """All flows above ran as the worker, and their jobs as their roles: who used what is recorded."""
    principal = "user/flows-worker" if name.endswith("Policy") else f"-{name}-"
    unused = {
        action
        for document in policies_of(name)
        for action in unused_actions(document, local_aws.record.uses, principal)
    }
    assert unused <= NOT_USED_HERE[name]


def policies_of(name: str) -> list[dict[str, Any]]:
    """The documents of a policy or role of the foundation, by its name in the template."""
    iam = boto3.client("iam")
    stack = boto3.client("cloudformation").describe_stack_resources(StackName="sagemaker-flows")
    physical = {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in stack["StackResources"]}[name]
    if name.endswith("Policy"):
        version = iam.get_policy(PolicyArn=physical)["Policy"]["DefaultVersionId"]
        found: Any = iam.get_policy_version(PolicyArn=physical, VersionId=version)["PolicyVersion"]["Document"]
        return [found]
    names = iam.list_role_policies(RoleName=physical)["PolicyNames"]
    inline: list[Any] = [iam.get_role_policy(RoleName=physical, PolicyName=one)["PolicyDocument"] for one in names]
    return inline

"""Whatever is wrong: one clear sentence, an exit code that says so, nothing half-created, nothing lost."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import boto3
import pytest

from tasks.aws.settings import load_settings

pytestmark = pytest.mark.slow


def jobs() -> list[str]:
    return [job["TrainingJobName"] for job in boto3.client("sagemaker").list_training_jobs()["TrainingJobSummaries"]]


def last_words(result: Any) -> str:
    assert result.returncode != 0
    words: str = result.stderr.strip().splitlines()[-1]
    return words


def test_a_dataset_that_does_not_exist(run_flow: Any) -> None:
    before = jobs()
    words = last_words(run_flow("operationalize", "--dataset.source", "/no/such/folder"))
    assert "/no/such/folder" in words
    assert jobs() == before


def test_a_class_folder_without_images(run_flow: Any, tmp_path: Path) -> None:
    from PIL import Image

    for label in ("cat", "dog"):
        (tmp_path / "shelter" / label).mkdir(parents=True)
    for i in range(12):
        Image.new("L", (8, 8), color=i).save(tmp_path / "shelter" / "cat" / f"{i}.png")
    words = last_words(run_flow("upload_dataset", "--dataset.source", str(tmp_path / "shelter")))
    assert "dog" in words
    listed = boto3.client("s3").list_objects_v2(Bucket=load_settings().bucket, Prefix="datasets/shelter")
    assert "Contents" not in listed


def test_no_credentials_and_no_endpoint_url(run_flow: Any) -> None:
    gone = dict.fromkeys(
        ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE")
    )
    assert "There are no AWS credentials and no local AWS" in last_words(run_flow("operationalize", environment=gone))


def test_a_prefect_server_that_is_not_there(run_flow: Any) -> None:
    nowhere = {
        "PREFECT_API_URL": "http://127.0.0.1:9/api",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "1",
    }
    words = last_words(run_flow("upload_dataset", environment=nowhere))
    assert words == "No Prefect server answers at http://127.0.0.1:9/api: start one (make ui), or unset PREFECT_API_URL"


def test_an_instance_type_that_sagemaker_does_not_know(run_flow: Any) -> None:
    before = jobs()
    words = last_words(run_flow("operationalize", "--compute.instance-type", "ml.m5.gigantic"))
    assert "SageMaker knows no instance type ml.m5.gigantic" in words
    assert "ml.m5.large" in words
    assert jobs() == before


def test_a_budget_that_does_not_pay_for_the_trainings(run_flow: Any) -> None:
    words = last_words(run_flow("operationalize", "--budget-usd", "0.5", "--several.instance-count", "2"))
    assert words.startswith("The trainings may cost up to $0.8")
    assert "are left of the budget of $0.50: raise it, or shorten max_runtime_seconds" in words


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--tuning.search.trainable", "head"), "The search has trials that could only fail: trainable='head' needs"),
        (("--compute.fallbacks", "ml.c5.xlarge"), "A tuning job has one type of machine for all of its trials"),
    ],
)
def test_a_search_that_could_not_be(run_flow: Any, options: tuple[str, ...], said: str) -> None:
    """Told before anything is looked up: there is no such dataset."""
    before = jobs()
    result = run_flow("tune_hyperparameters", "s3://no-such-bucket/dataset.json", *options)
    assert (result.returncode, f"\n{said}" in result.stderr) == (1, True)
    assert jobs() == before


def test_a_search_that_cannot_be_watched_is_stopped(run_flow: Any, manifest: str) -> None:
    """Neither a signal nor a failed job ends this wait: without permission to look, nobody would ever stop it."""
    iam, sagemaker = boto3.client("iam"), boto3.client("sagemaker")
    blind = {"Effect": "Deny", "Action": "sagemaker:ListTrainingJobsForHyperParameterTuningJob", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [blind]})
    iam.put_user_policy(UserName="flows-worker", PolicyName="blind", PolicyDocument=document)
    try:
        result = run_flow("tune_hyperparameters", manifest, "--hyperparameters.epochs", "500")
    finally:
        iam.delete_user_policy(UserName="flows-worker", PolicyName="blind")
    assert result.returncode == 1
    assert "\nAWS refused ListTrainingJobsForHyperParameterTuningJob (AccessDenied" in result.stderr
    assert "is being stopped, nobody waits for it" in result.stderr
    newest = sagemaker.list_hyper_parameter_tuning_jobs(SortBy="CreationTime", SortOrder="Descending", MaxResults=1)
    (left,) = newest["HyperParameterTuningJobSummaries"]
    assert left["HyperParameterTuningJobStatus"] in ("Stopping", "Stopped")


def test_a_training_script_that_raises(run_flow: Any, manifest: str) -> None:
    """Weights that are no weights: the script's own last lines are in the error that the user sees."""
    bucket = load_settings().bucket
    boto3.client("s3").put_object(Bucket=bucket, Key="weights/broken.safetensors", Body=b"no weights at all")
    result = run_flow(
        "train_single_instance",
        manifest,
        "--hyperparameters.architecture",
        "resnet18",
        "--hyperparameters.weights",
        f"s3://{bucket}/weights/broken.safetensors",
    )
    assert result.returncode == 1
    said = result.stderr[result.stderr.rindex("The training job flows-train-single-") :]
    assert "failed: AlgorithmError" in said
    assert "broken.safetensors" in said


def broken_package(folder: Path) -> bytes:
    application = {"name": "a", "import_path": "served:app", "args": {"asgi_app": "served:create"}}
    (folder / "config.yaml").write_text(json.dumps({"applications": [application]}))
    (folder / "served.py").write_text("raise RuntimeError('the weights are corrupt')")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(folder, arcname=".")
    return buffer.getvalue()


def test_an_endpoint_whose_model_cannot_load_is_deleted_and_its_words_are_kept(run_flow: Any, tmp_path: Path) -> None:
    bucket = load_settings().bucket
    boto3.client("s3").put_object(Bucket=bucket, Key="jobs/broken.tar.gz", Body=broken_package(tmp_path))
    before = what_there_is()
    result = run_flow("deploy_endpoint", f"s3://{bucket}/jobs/broken.tar.gz")
    assert result.returncode == 1
    said = result.stderr[result.stderr.rindex("The endpoint flows-endpoint-") :]
    assert "the weights are corrupt" in said
    assert what_there_is() <= before


def what_there_is() -> set[str]:
    """The endpoints, configurations and models of the flows, those of other tests too."""
    sagemaker = boto3.client("sagemaker")
    return {
        *(one["EndpointArn"] for one in sagemaker.list_endpoints(NameContains="flows-")["Endpoints"]),
        *(
            one["EndpointConfigArn"]
            for one in sagemaker.list_endpoint_configs(NameContains="flows-")["EndpointConfigs"]
        ),
        *(one["ModelArn"] for one in sagemaker.list_models(NameContains="flows-")["Models"]),
    }


def test_a_role_that_cannot_be_assumed(run_flow: Any, manifest: str) -> None:
    """It may only not have propagated yet, so it is tried again for a while, and then said."""
    iam = boto3.client("iam")
    role = next(role for role in iam.list_roles()["Roles"] if "TrainingRole" in role["RoleName"])
    nobody = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal": "*", "Action": "sts:AssumeRole"}]}
    iam.update_assume_role_policy(RoleName=role["RoleName"], PolicyDocument=json.dumps(nobody))
    try:
        words = last_words(run_flow("train_single_instance", manifest, "--hyperparameters.seed", "7"))
    finally:
        policy = json.dumps(role["AssumeRolePolicyDocument"])
        iam.update_assume_role_policy(RoleName=role["RoleName"], PolicyDocument=policy)
    assert "Could not assume role" in words


def test_an_instance_type_without_capacity_is_followed_by_the_next_and_at_last_by_one_clear_error(
    run_flow: Any, manifest: str, local_aws: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_aws.account, "types_without_capacity", frozenset({"ml.c5.xlarge", "ml.c5.2xlarge"}))
    machine = ("--hyperparameters.epochs", "1", "--compute.instance-type", "ml.c5.xlarge")
    train = ("train_single_instance", manifest, *machine)
    words = last_words(run_flow(*train, "--compute.fallbacks", "ml.c5.2xlarge"))
    assert words.startswith("AWS has no capacity for ml.c5.xlarge, ml.c5.2xlarge: try later or in another region")
    result = run_flow(*train, "--compute.fallbacks", "ml.c5.2xlarge", "ml.m5.large")
    assert result.returncode == 0, result.stderr[-2000:]

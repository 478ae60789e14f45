"""Tuning jobs of the local AWS: what SageMaker promises of a search, with trials that really run."""

import json
import re
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from deployments.local_aws import tuning_run
from deployments.local_aws.tuning_jobs import TuningJobs

pytestmark = pytest.mark.slow

PARABOLA = """
import json, os, time
hps = json.loads(os.environ["SM_HPS"])
for epoch in range(hps.get("epochs", 3)):
    print(f"loss={(hps['x'] - 0.3) ** 2 + 1 / (epoch + 1)}", flush=True)
    time.sleep(hps.get("pause", 0))
"""
FAIL = "raise ValueError('the learning rate is a banana')"
SLEEP = "import time; print('loss=1', flush=True); time.sleep(600)"
X = {"ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]}
METRICS = [{"Name": "loss", "Regex": "loss=([-+0-9.e]+)"}]


def choices(*values: str) -> dict[str, Any]:
    return {"CategoricalParameterRanges": [{"Name": "x", "Values": list(values)}]}


def tuning_request(
    cloud: Any,
    script: str = PARABOLA,
    ranges: dict[str, Any] = X,
    strategy: str = "Random",
    trials: int | None = 4,
    *,
    parallel: int = 2,
    static: dict[str, str] | None = None,
    config: dict[str, Any] | None = None,
    definition: dict[str, Any] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    trial = cloud.job_request(cloud.program(script))
    trial.pop("TrainingJobName")
    of_program = trial.pop("HyperParameters")
    trial["AlgorithmSpecification"]["MetricDefinitions"] = METRICS
    limits = {"MaxParallelTrainingJobs": parallel} | ({"MaxNumberOfTrainingJobs": trials} if trials else {})
    return {
        "HyperParameterTuningJobName": cloud.name("tune"),
        "HyperParameterTuningJobConfig": {
            "Strategy": strategy,
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
            "ResourceLimits": limits,
            "ParameterRanges": ranges,
            "RandomSeed": 1,
            **(config or {}),
        },
        "TrainingJobDefinition": {
            **trial,
            "StaticHyperParameters": of_program | (static or {}),
            **(definition or {}),
        },
        **changes,
    }


def start(cloud: Any, *args: Any, **kwargs: Any) -> str:
    request = tuning_request(cloud, *args, **kwargs)
    cloud.sagemaker.create_hyper_parameter_tuning_job(**request)
    return str(request["HyperParameterTuningJobName"])


def describe(cloud: Any, name: str) -> dict[str, Any]:
    description: dict[str, Any] = cloud.sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    return description


def end_of(cloud: Any, name: str) -> dict[str, Any]:
    ended: dict[str, Any] = cloud.until(
        lambda: describe(cloud, name),
        lambda job: job["HyperParameterTuningJobStatus"] in ("Completed", "Failed", "Stopped"),
    )
    return ended


def tune(cloud: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    return end_of(cloud, start(cloud, *args, **kwargs))


def trials_of(cloud: Any, job: dict[str, Any], **order: str) -> list[dict[str, Any]]:
    pages = cloud.sagemaker.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job").paginate(
        HyperParameterTuningJobName=job["HyperParameterTuningJobName"], **order
    )
    return [trial for page in pages for trial in page["TrainingJobSummaries"]]


def objective(trial: dict[str, Any]) -> float:
    return float(trial["FinalHyperParameterTuningJobObjectiveMetric"]["Value"])


def refused(cloud: Any, request: dict[str, Any]) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        cloud.sagemaker.create_hyper_parameter_tuning_job(**request)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


# --- the search -----------------------------------------------------------------------------------------------------


def test_bayesian_search_closes_in_on_the_optimum(cloud: Any) -> None:
    job = tune(cloud, strategy="Bayesian", trials=7, parallel=1)
    tried = [float(trial["TunedHyperParameters"]["x"]) for trial in trials_of(cloud, job)]
    assert abs(float(job["BestTrainingJob"]["TunedHyperParameters"]["x"]) - 0.3) < 0.05
    assert len(tried) == len(set(tried)) == 7


def test_a_seed_makes_a_search_repeatable(cloud: Any) -> None:
    names = [start(cloud, trials=3, parallel=1) for _ in range(2)]
    tried = [
        [trial["TunedHyperParameters"] for trial in trials_of(cloud, job)]
        for job in (end_of(cloud, name) for name in names)
    ]
    assert tried[0] == tried[1]


def test_a_grid_visits_each_combination_once_and_needs_no_number_of_jobs(cloud: Any) -> None:
    ranges = {
        "CategoricalParameterRanges": [
            {"Name": "x", "Values": ["0.1", "0.2"]},
            {"Name": "kind", "Values": ['"a"', '"b"', "plain"]},
        ]
    }
    job = tune(cloud, ranges=ranges, strategy="Grid", trials=None, parallel=3)
    tried = sorted(tuple(trial["TunedHyperParameters"].values()) for trial in trials_of(cloud, job))
    assert tried == sorted((x, kind) for x in ("0.1", "0.2") for kind in ('"a"', '"b"', "plain"))


def test_what_can_be_counted_is_never_tried_twice(cloud: Any) -> None:
    ranges = {"IntegerParameterRanges": [{"Name": "x", "MinValue": "1", "MaxValue": "4"}]}
    job = tune(cloud, ranges=ranges, trials=4)
    assert sorted(trial["TunedHyperParameters"]["x"] for trial in trials_of(cloud, job)) == ["1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("kind", "low", "high", "scale"),
    [
        ("Continuous", "0.0001", "0.1", "Logarithmic"),
        ("Continuous", "0.9", "0.9999", "ReverseLogarithmic"),
        ("Continuous", "1e-5", "1", "Auto"),
        ("Integer", "1", "1024", "Logarithmic"),
    ],
)
def test_values_are_strings_within_their_range(cloud: Any, kind: str, low: str, high: str, scale: str) -> None:
    ranges = {
        f"{kind}ParameterRanges": [{"Name": "x", "MinValue": low, "MaxValue": high, "ScalingType": scale}],
    }
    tried = [trial["TunedHyperParameters"]["x"] for trial in trials_of(cloud, tune(cloud, ranges=ranges, trials=3))]
    assert all(float(low) <= float(value) <= float(high) for value in tried)
    assert all(value.isdigit() for value in tried) == (kind == "Integer")


def test_jobs_run_in_parallel_as_many_as_asked_and_never_more(cloud: Any) -> None:
    job = tune(cloud, static={"pause": "0.15"}, trials=5, parallel=2)
    trials = trials_of(cloud, job)
    at_once = [
        sum(one["CreationTime"] <= other["CreationTime"] < one["TrainingEndTime"] for one in trials) for other in trials
    ]
    assert max(at_once) == 2


# --- trials ---------------------------------------------------------------------------------------------------------


def test_a_trial_is_a_training_job_like_any_other(cloud: Any) -> None:
    tags = [{"Key": "project", "Value": "p"}]
    job = tune(cloud, ranges=choices("0.25"), strategy="Grid", trials=None, Tags=tags)
    name = job["HyperParameterTuningJobName"]
    trial = cloud.sagemaker.describe_training_job(TrainingJobName=job["BestTrainingJob"]["TrainingJobName"])
    assert re.fullmatch(rf"{name}-001-[0-9a-f]{{8}}", trial["TrainingJobName"])
    assert trial["TuningJobArn"] == job["HyperParameterTuningJobArn"]
    assert trial["HyperParameters"]["x"] == "0.25"
    assert trial["HyperParameters"]["_tuning_objective_metric"] == "loss"
    assert cloud.sagemaker.list_tags(ResourceArn=trial["TrainingJobArn"])["Tags"] == tags
    assert trial["ModelArtifacts"]["S3ModelArtifacts"].endswith(f"{trial['TrainingJobName']}/output/model.tar.gz")


def test_the_script_is_not_told_what_the_toolkit_keeps_to_itself(cloud: Any) -> None:
    script = "import os, sys; print(sys.argv[1:], os.environ['SM_HPS'], 'loss=1')"
    job = tune(cloud, script, choices("0.25"), "Grid", None)
    line = cloud.lines("/aws/sagemaker/TrainingJobs", job["BestTrainingJob"]["TrainingJobName"] + "/")[0]
    assert line == "['-x', '0.25'] {\"x\":0.25} loss=1"


def test_the_last_value_is_the_objective_and_the_counters_add_up(cloud: Any) -> None:
    script = PARABOLA + "\nif hps['x'] == 0.2: raise SystemExit(3)"
    job = tune(cloud, script, choices("0.1", "0.2", "0.4"), "Grid", None)
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    counters = job["TrainingJobStatusCounters"]
    assert (counters["Completed"], counters["NonRetryableError"], sum(counters.values())) == (2, 1, 3)
    assert job["ObjectiveStatusCounters"] == {"Succeeded": 2, "Pending": 0, "Failed": 1}
    best = job["BestTrainingJob"]
    assert best["TunedHyperParameters"] == {"x": "0.4"}
    assert objective(best) == pytest.approx(0.01 + 1 / 3)
    assert (best["ObjectiveStatus"], best["TrainingJobStatus"]) == ("Succeeded", "Completed")


def test_an_objective_is_pending_until_the_tuning_job_has_looked_at_it(
    cloud: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on AWS, where a trial is Completed some time before its metric is read."""
    read, may_look = tuning_run.final_objective, threading.Event()

    def read_late(*arguments: Any) -> float | None:
        may_look.wait(30)
        return read(*arguments)

    monkeypatch.setattr(tuning_run, "final_objective", read_late)
    name = start(cloud, trials=1)
    (trial,) = cloud.until(
        lambda: trials_of(cloud, describe(cloud, name)),
        lambda ones: ones and ones[0]["TrainingJobStatus"] != "InProgress",
    )
    counted = describe(cloud, name)
    may_look.set()
    assert (trial["TrainingJobStatus"], trial["ObjectiveStatus"]) == ("Completed", "Pending")
    assert "FinalHyperParameterTuningJobObjectiveMetric" not in trial
    assert counted["ObjectiveStatusCounters"] == {"Succeeded": 0, "Pending": 1, "Failed": 0}
    assert "BestTrainingJob" not in counted
    assert end_of(cloud, name)["BestTrainingJob"]["ObjectiveStatus"] == "Succeeded"


def test_a_maximum_is_the_largest(cloud: Any) -> None:
    config = {"HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "loss"}}
    job = tune(cloud, ranges=choices("0.1", "0.3", "0.9"), strategy="Grid", trials=None, config=config)
    assert job["BestTrainingJob"]["TunedHyperParameters"] == {"x": "0.9"}


def test_when_every_trial_fails_the_job_fails(cloud: Any) -> None:
    job = tune(cloud, FAIL, trials=2)
    assert job["HyperParameterTuningJobStatus"] == "Failed"
    assert "No training job succeeded after 2 attempts" in job["FailureReason"]
    assert "BestTrainingJob" not in job
    assert "banana" in trials_of(cloud, job)[0]["FailureReason"]


def test_a_search_without_any_success_is_given_up_after_five_trials(cloud: Any) -> None:
    job = tune(cloud, FAIL, trials=50, parallel=1)
    assert (job["HyperParameterTuningJobStatus"], len(trials_of(cloud, job))) == ("Failed", 5)


def test_an_objective_that_is_never_printed_fails_the_job_and_says_so(cloud: Any) -> None:
    job = tune(cloud, "print('lost=1')", trials=2)
    assert job["HyperParameterTuningJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("No objective metrics found after running 2 training jobs.")
    assert [trial["ObjectiveStatus"] for trial in trials_of(cloud, job)] == ["Failed", "Failed"]


def test_a_trial_that_prints_no_number_is_ignored_by_the_search(cloud: Any) -> None:
    script = PARABOLA + "\nif hps['x'] == 0.2: print('loss=e')"
    script = script.replace('print(f"', "hps['x'] == 0.2 or print(f\"")
    job = tune(cloud, script, choices("0.2", "0.4"), "Grid", None)
    assert job["BestTrainingJob"]["TunedHyperParameters"] == {"x": "0.4"}
    assert job["ObjectiveStatusCounters"]["Failed"] == 1


# --- ending early ---------------------------------------------------------------------------------------------------


def test_early_stopping_stops_a_hopeless_trial(cloud: Any) -> None:
    """Values are what SageMaker compares: worse than the median of the others' running averages is hopeless."""
    script = PARABOLA + "\nif hps['x'] == 0.9: time.sleep(600)"
    ranges = choices("0.3", "0.31", "0.32", "0.9")
    job = tune(cloud, script, ranges, "Grid", None, parallel=1, config={"TrainingJobEarlyStoppingType": "Auto"})
    last = trials_of(cloud, job)[-1]
    assert (last["TrainingJobStatus"], last["ObjectiveStatus"]) == ("Stopped", "Succeeded")
    assert job["TrainingJobStatusCounters"]["Stopped"] == 1
    assert job["HyperParameterTuningJobStatus"] == "Completed"


def test_hyperband_stops_what_falls_behind_and_lets_the_best_finish(cloud: Any) -> None:
    static = {"epochs": "9", "pause": "0.05"}
    job = tune(cloud, strategy="Hyperband", trials=8, parallel=1, static=static)
    statuses = [trial["TrainingJobStatus"] for trial in trials_of(cloud, job)]
    assert set(statuses) == {"Completed", "Stopped"}
    assert job["BestTrainingJob"]["TrainingJobStatus"] == "Completed"


def test_hyperband_gives_no_trial_more_than_its_resource(cloud: Any) -> None:
    config = {"StrategyConfig": {"HyperbandStrategyConfig": {"MinResource": 2, "MaxResource": 2}}}
    job = tune(cloud, PARABOLA + "\ntime.sleep(600)", X, "Hyperband", 2, config=config)
    assert job["TrainingJobStatusCounters"]["Stopped"] == 2
    assert job["BestTrainingJob"]["ObjectiveStatus"] == "Succeeded"  # of stopped ones, where there are no others


def test_a_target_that_is_reached_completes_the_job(cloud: Any) -> None:
    config = {"TuningJobCompletionCriteria": {"TargetObjectiveMetricValue": 0.5}}
    job = tune(cloud, ranges=choices("0.9", "0.3", "0.1"), strategy="Grid", trials=None, parallel=1, config=config)
    assert (job["HyperParameterTuningJobStatus"], len(trials_of(cloud, job))) == ("Completed", 2)


def test_a_search_that_does_not_improve_completes_the_job(cloud: Any) -> None:
    criteria = {"BestObjectiveNotImproving": {"MaxNumberOfTrainingJobsNotImproving": 3}}
    ranges = choices("0.3", "0.301", "0.302", "0.303", "0.304", "0.305")
    config = {"TuningJobCompletionCriteria": criteria}
    job = tune(cloud, ranges=ranges, strategy="Grid", trials=None, parallel=1, config=config)
    assert len(trials_of(cloud, job)) == 4
    assert job["TuningJobCompletionDetails"]["NumberOfTrainingJobsObjectiveNotImproving"] == 3


def test_the_time_limit_ends_the_job_with_what_it_has(cloud: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TuningJobs, "clock", staticmethod(lambda: 100 * time.monotonic()))
    limits = {"MaxNumberOfTrainingJobs": 100, "MaxParallelTrainingJobs": 1, "MaxRuntimeInSeconds": 120}
    script = PARABOLA + "\ntime.sleep(600)"
    job = tune(cloud, script, config={"ResourceLimits": limits})
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert [trial["TrainingJobStatus"] for trial in trials_of(cloud, job)] == ["Stopped"]


def test_a_stopped_job_stops_its_trials_and_starts_no_other(cloud: Any) -> None:
    name = start(cloud, SLEEP, trials=10, parallel=2)
    cloud.until(lambda: describe(cloud, name)["TrainingJobStatusCounters"]["InProgress"], lambda running: running == 2)
    cloud.sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    assert describe(cloud, name)["HyperParameterTuningJobStatus"] in ("Stopping", "Stopped")
    job = end_of(cloud, name)
    assert job["HyperParameterTuningJobStatus"] == "Stopped"
    assert {trial["TrainingJobStatus"] for trial in trials_of(cloud, job)} == {"Stopped"}
    assert len(trials_of(cloud, job)) == 2
    with pytest.raises(ClientError, match="is in status Stopped"):
        cloud.sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)


def test_a_trial_that_somebody_stops_does_not_stop_the_search(cloud: Any) -> None:
    name = start(
        cloud, PARABOLA + "\nif hps['x'] == 0.9: time.sleep(600)", choices("0.9", "0.3"), "Grid", None, parallel=1
    )
    trial = cloud.until(lambda: trials_of(cloud, describe(cloud, name)), bool)[0]
    cloud.sagemaker.stop_training_job(TrainingJobName=trial["TrainingJobName"])
    job = end_of(cloud, name)
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert job["BestTrainingJob"]["TunedHyperParameters"] == {"x": "0.3"}


def test_the_local_aws_ends_at_once_with_a_search_in_progress() -> None:
    program = """
import io, json, tarfile, boto3
stack = boto3.client("cloudformation").describe_stacks(StackName="sagemaker-flows")["Stacks"][0]
outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
buffer, script = io.BytesIO(), b"import time; time.sleep(600)"
with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
    member = tarfile.TarInfo("train.py")
    member.size = len(script)
    tar.addfile(member, io.BytesIO(script))
boto3.client("s3").put_object(Bucket=outputs["BucketName"], Key="code/p.tar.gz", Body=buffer.getvalue())
uri = f"s3://{outputs['BucketName']}/code/p.tar.gz"
sagemaker = boto3.client("sagemaker")
sagemaker.create_hyper_parameter_tuning_job(
    HyperParameterTuningJobName="left",
    HyperParameterTuningJobConfig={
        "Strategy": "Random",
        "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 9, "MaxParallelTrainingJobs": 2},
        "ParameterRanges": {"IntegerParameterRanges": [{"Name": "x", "MinValue": "1", "MaxValue": "99"}]},
    },
    TrainingJobDefinition={
        "StaticHyperParameters": {"sagemaker_program": "train.py", "sagemaker_submit_directory": json.dumps(uri)},
        "AlgorithmSpecification": {
            "TrainingImage": "p", "TrainingInputMode": "File", "MetricDefinitions": [{"Name": "loss", "Regex": "(x)"}]
        },
        "RoleArn": outputs["TrainingRoleArn"],
        "OutputDataConfig": {"S3OutputPath": f"s3://{outputs['BucketName']}/jobs"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
    },
)
while True:
    left = sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName="left")
    if left["TrainingJobStatusCounters"]["InProgress"] == 2:
        break
"""
    command = [sys.executable, "-m", "deployments.local_aws", "--", sys.executable, "-c", program]
    assert subprocess.run(command, timeout=60, check=False, capture_output=True).returncode == 0


# --- warm start -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parent(cloud: Any) -> str:
    values = ("0.0", "0.15", "0.45", "0.6", "0.8", "1.0")
    job = tune(cloud, ranges=choices(*values), strategy="Grid", trials=None, parallel=3)
    return str(job["HyperParameterTuningJobName"])


def warm(parent: str, kind: str = "TransferLearning") -> dict[str, Any]:
    parents = [{"HyperParameterTuningJobName": parent}]
    return {"ParentHyperParameterTuningJobs": parents, "WarmStartType": kind}


def test_a_warm_start_begins_where_the_parents_have_been(cloud: Any, parent: str) -> None:
    """Without what the parent knows, the first trial of this seed is at 0.42."""
    job = tune(cloud, strategy="Bayesian", trials=1, WarmStartConfig=warm(parent))
    assert abs(float(job["BestTrainingJob"]["TunedHyperParameters"]["x"]) - 0.3) < 0.1
    assert "OverallBestTrainingJob" not in job


def test_the_best_of_all_may_be_a_parents(cloud: Any, parent: str) -> None:
    definition = describe(cloud, parent)["TrainingJobDefinition"]
    request = tuning_request(
        cloud, ranges=choices("0.9"), trials=1, WarmStartConfig=warm(parent, "IdenticalDataAndAlgorithm")
    )
    request["TrainingJobDefinition"] = definition
    cloud.sagemaker.create_hyper_parameter_tuning_job(**request)
    job = end_of(cloud, request["HyperParameterTuningJobName"])
    assert job["OverallBestTrainingJob"]["TuningJobName"] == parent
    assert job["BestTrainingJob"]["TunedHyperParameters"] == {"x": "0.9"}


def test_a_warm_start_needs_parents_that_fit(cloud: Any, parent: str) -> None:
    code, message = refused(cloud, tuning_request(cloud, WarmStartConfig=warm("nobody")))
    assert (code, "can't find a tuning job called nobody" in message) == ("ResourceNotFound", True)
    code, message = refused(cloud, tuning_request(cloud, static={"extra": "1"}, WarmStartConfig=warm(parent)))
    assert "must remain the same" in message
    other = {"HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "loss"}}
    code, message = refused(cloud, tuning_request(cloud, config=other, WarmStartConfig=warm(parent)))
    assert "objective metric must be the same" in message
    identical = tuning_request(cloud, WarmStartConfig=warm(parent, "IdenticalDataAndAlgorithm"))
    identical["TrainingJobDefinition"]["AlgorithmSpecification"]["TrainingImage"] = "another"
    assert "AlgorithmSpecification" in refused(cloud, identical)[1]


def test_a_parent_that_still_runs_is_refused(cloud: Any) -> None:
    name = start(cloud, SLEEP)
    code, message = refused(cloud, tuning_request(cloud, WarmStartConfig=warm(name)))
    cloud.sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    assert (code, "is in status InProgress" in message) == ("ValidationException", True)
    end_of(cloud, name)


# --- lists ----------------------------------------------------------------------------------------------------------


def test_trials_are_listed_sorted_and_paged(cloud: Any) -> None:
    script = "import sys\nif '0.5' in sys.argv: sys.exit(1)\n" + PARABOLA
    job = tune(cloud, script, choices("0.9", "0.5", "0.3"), "Grid", None, parallel=1)
    by_name = trials_of(cloud, job)
    assert [trial["TunedHyperParameters"]["x"] for trial in by_name] == ["0.9", "0.5", "0.3"]
    judged = trials_of(cloud, job, SortBy="FinalObjectiveMetricValue")
    assert [trial["TunedHyperParameters"]["x"] for trial in judged] == ["0.3", "0.9"]
    newest = trials_of(cloud, job, SortBy="CreationTime", SortOrder="Descending")
    assert newest == by_name[::-1]
    assert [trial["TrainingJobStatus"] for trial in trials_of(cloud, job, StatusEquals="Failed")] == ["Failed"]
    statuses = [trial["TrainingJobStatus"] for trial in trials_of(cloud, job, SortBy="Status")]
    assert statuses == ["Completed", "Completed", "Failed"]
    page = cloud.sagemaker.list_training_jobs_for_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=job["HyperParameterTuningJobName"], MaxResults=2
    )
    assert len(page["TrainingJobSummaries"]) == 2
    assert page["NextToken"]


def test_tuning_jobs_are_listed_with_their_counters(cloud: Any) -> None:
    name = tune(cloud, trials=1)["HyperParameterTuningJobName"]
    found = cloud.sagemaker.list_hyper_parameter_tuning_jobs(NameContains=name, StatusEquals="Completed")
    (summary,) = [
        one for one in found["HyperParameterTuningJobSummaries"] if one["HyperParameterTuningJobName"] == name
    ]
    assert (summary["Strategy"], summary["TrainingJobStatusCounters"]["Completed"]) == ("Random", 1)


# --- what is refused ------------------------------------------------------------------------------------------------


def test_a_name_is_used_once(cloud: Any) -> None:
    request = tuning_request(cloud, trials=1)
    cloud.sagemaker.create_hyper_parameter_tuning_job(**request)
    code, message = refused(cloud, request)
    assert (code, "already exists. Choose a different name." in message) == ("ResourceInUse", True)
    end_of(cloud, request["HyperParameterTuningJobName"])


def test_a_role_that_does_not_exist_is_refused_before_there_is_a_job(cloud: Any) -> None:
    request = tuning_request(cloud, definition={"RoleArn": "arn:aws:iam::123456789012:role/nobody"})
    code, message = refused(cloud, request)
    assert (code, "Could not assume role" in message) == ("ValidationException", True)
    with pytest.raises(ClientError, match="ResourceNotFound"):
        describe(cloud, request["HyperParameterTuningJobName"])


def ranges_of(kind: str, low: str, high: str, scale: str = "Linear", name: str = "x") -> dict[str, Any]:
    return {f"{kind}ParameterRanges": [{"Name": name, "MinValue": low, "MaxValue": high, "ScalingType": scale}]}


HYPERBAND = {"StrategyConfig": {"HyperbandStrategyConfig": {"MinResource": 5, "MaxResource": 3}}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ranges": ranges_of("Continuous", "0.2", "0.1")}, "greater than its MaxValue"),
        ({"ranges": ranges_of("Continuous", "zero", "1")}, "must be a number"),
        ({"ranges": ranges_of("Integer", "0.5", "1")}, "must be an integer"),
        ({"ranges": ranges_of("Continuous", "0", "1", "Logarithmic")}, "only values greater than 0"),
        ({"ranges": ranges_of("Continuous", "0", "1", "ReverseLogarithmic")}, "0<=x<1.0"),
        ({"ranges": ranges_of("Integer", "1", "3")}, "enough combinations of hyperparameter ranges"),
        ({"ranges": {}}, "at least one hyperparameter range"),
        ({"ranges": X | ranges_of("Integer", "1", "9")}, "given twice: x"),
        ({"static": {"x": "1"}}, "given twice: x"),
        ({"strategy": "Grid"}, "categorical hyperparameters only"),
        ({"strategy": "Grid", "ranges": choices("1", "2"), "trials": 3}, "must equal the number of distinct"),
        ({"strategy": "Hyperband"}, "MaxResource parameter is not provided and could not be inferred"),
        ({"strategy": "Hyperband", "config": HYPERBAND}, "must be between MinResource"),
        ({"config": HYPERBAND}, "with the strategy Hyperband only"),
        (
            {"strategy": "Hyperband", "static": {"epochs": "3"}, "config": {"TrainingJobEarlyStoppingType": "Auto"}},
            "TrainingJobEarlyStoppingType must be Off",
        ),
        (
            {"config": {"HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "lost"}}},
            "A metric is required for this hyperparameter tuning job objective",
        ),
        ({"trials": None}, "would not end"),
        ({"trials": 751}, "is 750"),
        ({"parallel": 11}, "is 10"),
        ({"static": {f"h{i}": "1" for i in range(97)}}, "100 hyperparameters"),
        ({"definition": {"CheckpointConfig": {"S3Uri": "s3://b/c"}}}, "does not implement"),
        ({"definition": {"RetryStrategy": {"MaximumRetryAttempts": 2}}}, "does not implement"),
        ({"definition": {"EnableManagedSpotTraining": True}}, "does not implement"),
        ({"definition": {"OutputDataConfig": {"S3OutputPath": "https://b/o"}}}, "must begin with s3://"),
        ({"static": {"sagemaker_program": "../evil.py"}}, "relative path"),
        ({"Autotune": {"Mode": "Enabled"}}, "does not implement Autotune"),
        ({"HyperParameterTuningJobName": "x" * 33}, "length less than or equal to 32"),
    ],
)
def test_what_could_only_fail_or_would_not_happen_is_refused(cloud: Any, change: dict[str, Any], words: str) -> None:
    request = tuning_request(cloud, **change)
    code, message = refused(cloud, request)
    assert words in message
    assert code == ("ResourceLimitExceeded" if "account-level service limit" in message else "ValidationException")


def test_an_algorithm_of_several_is_refused(cloud: Any) -> None:
    request = tuning_request(cloud)
    request["TrainingJobDefinitions"] = [request.pop("TrainingJobDefinition")]
    assert "does not implement TrainingJobDefinitions" in refused(cloud, request)[1]


def test_a_job_that_does_not_exist_is_not_found(cloud: Any) -> None:
    with pytest.raises(ClientError, match="can't find a tuning job called nobody") as caught:
        describe(cloud, "nobody")
    assert caught.value.response["Error"]["Code"] == "ResourceNotFound"


def test_static_hyperparameters_reach_the_script_with_the_tuned_ones(cloud: Any) -> None:
    script = "import os; print('loss=1'); print(os.environ['SM_HPS'])"
    static = {"name": json.dumps("resnet"), "epochs": "3"}
    job = tune(cloud, script, choices("0.5"), "Grid", None, static=static)
    line = cloud.lines("/aws/sagemaker/TrainingJobs", job["BestTrainingJob"]["TrainingJobName"] + "/")[-1]
    assert json.loads(line) == {"name": "resnet", "epochs": 3, "x": 0.5}

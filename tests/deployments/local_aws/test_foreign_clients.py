"""Clients that nobody here wrote find an AWS: the `aws` command line, and sagemaker-core."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = "import os\nprint('accuracy=0.75')\nopen(os.environ['SM_MODEL_DIR'] + '/m', 'w').write('m')"


def aws(*arguments: str) -> Any:
    command = [str(Path(sys.executable).with_name("aws")), *arguments, "--output", "json"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout) if result.stdout.strip().startswith(("{", "[")) else result.stdout


def test_the_command_line_describes_a_training_job(cloud: Any) -> None:
    name = cloud.run_job(SCRIPT)["TrainingJobName"]
    assert aws("sagemaker", "describe-training-job", "--training-job-name", name)["TrainingJobStatus"] == "Completed"


def test_the_command_line_syncs_a_folder_that_a_job_then_reads(cloud: Any, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.txt").write_text("one")
    uri = f"s3://{cloud.bucket}/datasets/{cloud.name('sync')}/"
    aws("s3", "sync", str(tmp_path), uri)
    script = "import os; print(open(os.environ['SM_CHANNEL_TRAIN'] + '/a/1.txt').read())"
    job = cloud.run_job(script, InputDataConfig=[cloud.channel("train", uri)])
    assert cloud.lines("/aws/sagemaker/TrainingJobs", job["TrainingJobName"] + "/") == ["one"]


def test_the_command_line_invokes_an_endpoint(cloud: Any, tmp_path: Path) -> None:
    name = cloud.endpoint(cloud.config(cloud.package()))["EndpointName"]
    answer = tmp_path / "answer"
    body = tmp_path / "body"
    body.write_bytes(b"command line")
    aws("sagemaker-runtime", "invoke-endpoint", "--endpoint-name", name, "--body", f"fileb://{body}", str(answer))
    assert answer.read_text() == "hello command line"


TUNED = SCRIPT + "\nimport json\nprint('loss=%f' % (json.loads(os.environ['SM_HPS'])['x'] - 0.5) ** 2)"


def test_the_command_line_describes_a_tuning_job_and_waits_for_none_of_it(cloud: Any) -> None:
    trial = cloud.job_request(cloud.program(TUNED))
    name, program = trial.pop("TrainingJobName"), trial.pop("HyperParameters")
    trial["AlgorithmSpecification"]["MetricDefinitions"] = [{"Name": "loss", "Regex": "loss=([0-9.]+)"}]
    config = {
        "Strategy": "Grid",
        "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
        "ResourceLimits": {"MaxParallelTrainingJobs": 2},
        "ParameterRanges": {"CategoricalParameterRanges": [{"Name": "x", "Values": ["0.25", "0.5"]}]},
    }
    aws(
        *("sagemaker", "create-hyper-parameter-tuning-job", "--hyper-parameter-tuning-job-name", name),
        *("--hyper-parameter-tuning-job-config", json.dumps(config)),
        *("--training-job-definition", json.dumps({**trial, "StaticHyperParameters": program})),
    )
    describe = ("sagemaker", "describe-hyper-parameter-tuning-job", "--hyper-parameter-tuning-job-name", name)
    job = cloud.until(lambda: aws(*describe), lambda job: job["HyperParameterTuningJobStatus"] == "Completed")
    assert job["BestTrainingJob"]["TunedHyperParameters"] == {"x": "0.5"}


@pytest.mark.slow
def test_sagemaker_core_creates_a_tuning_job_and_waits_for_it(cloud: Any) -> None:
    from sagemaker.core import shapes
    from sagemaker.core.resources import HyperParameterTuningJob

    program = json.dumps(cloud.program(TUNED))
    job = HyperParameterTuningJob.create(
        hyper_parameter_tuning_job_name=cloud.name("core-tune"),
        hyper_parameter_tuning_job_config=shapes.HyperParameterTuningJobConfig(
            strategy="Random",
            hyper_parameter_tuning_job_objective=shapes.HyperParameterTuningJobObjective(
                type="Minimize", metric_name="loss"
            ),
            resource_limits=shapes.ResourceLimits(max_number_of_training_jobs=3, max_parallel_training_jobs=2),
            parameter_ranges=shapes.ParameterRanges(
                continuous_parameter_ranges=[
                    shapes.ContinuousParameterRange(name="x", min_value="0", max_value="1", scaling_type="Linear")
                ]
            ),
        ),
        training_job_definition=shapes.HyperParameterTrainingJobDefinition(
            static_hyper_parameters={"sagemaker_program": "train.py", "sagemaker_submit_directory": program},
            algorithm_specification=shapes.HyperParameterAlgorithmSpecification(
                training_image="pytorch",
                training_input_mode="File",
                metric_definitions=[shapes.MetricDefinition(name="loss", regex="loss=([0-9.]+)")],
            ),
            role_arn=cloud.outputs["TrainingRoleArn"],
            output_data_config=shapes.OutputDataConfig(s3_output_path=f"s3://{cloud.bucket}/jobs"),
            resource_config=shapes.ResourceConfig(instance_type="ml.m5.large", instance_count=1, volume_size_in_gb=1),
            stopping_condition=shapes.StoppingCondition(max_runtime_in_seconds=60),
        ),
        region="us-east-1",
    )
    job.wait(poll=1)
    job.refresh()
    assert job.hyper_parameter_tuning_job_status == "Completed"
    assert job.best_training_job.final_hyper_parameter_tuning_job_objective_metric.value < 1


@pytest.mark.slow
def test_sagemaker_core_creates_a_job_and_follows_its_logs(cloud: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from sagemaker.core.resources import TrainingJob
    from sagemaker.core.shapes import AlgorithmSpecification, OutputDataConfig, ResourceConfig, StoppingCondition

    name = cloud.name("core")
    job = TrainingJob.create(
        training_job_name=name,
        algorithm_specification=AlgorithmSpecification(training_image="pytorch", training_input_mode="File"),
        role_arn=cloud.outputs["TrainingRoleArn"],
        hyper_parameters={
            "sagemaker_program": '"train.py"',
            "sagemaker_submit_directory": json.dumps(cloud.program(SCRIPT)),
        },
        output_data_config=OutputDataConfig(s3_output_path=f"s3://{cloud.bucket}/jobs"),
        resource_config=ResourceConfig(instance_type="ml.m5.large", instance_count=1, volume_size_in_gb=1),
        stopping_condition=StoppingCondition(max_runtime_in_seconds=60),
        region="us-east-1",
    )
    job.wait(poll=1, logs=True)
    assert job.training_job_status == "Completed"
    assert job.model_artifacts.s3_model_artifacts.endswith(f"{name}/output/model.tar.gz")

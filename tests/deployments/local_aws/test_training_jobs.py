"""Training jobs of the local AWS: what SageMaker promises, kept by real processes."""

import json
import os
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from deployments.local_aws.training_jobs import TrainingJobs

GROUP = "/aws/sagemaker/TrainingJobs"
HELLO = "print('hello')"


def refused(call: Any, **request: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**request)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def test_a_job_goes_through_the_documented_statuses(cloud: Any) -> None:
    job = cloud.run_job(HELLO)
    assert job["TrainingJobStatus"] == "Completed"
    assert [transition["Status"] for transition in job["SecondaryStatusTransitions"]] == [
        "Starting",
        "Downloading",
        "Training",
        "Uploading",
        "Completed",
    ]
    phases = job["SecondaryStatusTransitions"]
    assert all(phase["StartTime"] <= phase["EndTime"] for phase in phases)
    assert [phase["EndTime"] for phase in phases[:-1]] == [phase["StartTime"] for phase in phases[1:]]
    assert job["CreationTime"] <= job["TrainingStartTime"] <= job["TrainingEndTime"]
    assert job["BillableTimeInSeconds"] >= 1


def test_every_line_arrives_in_order_before_the_job_has_ended(cloud: Any) -> None:
    job = cloud.run_job("import sys\nfor i in range(3000): print(i, file=(sys.stdout, sys.stderr)[i % 2], flush=True)")
    assert cloud.lines(GROUP, job["TrainingJobName"] + "/") == [str(i) for i in range(3000)]


def test_metrics_are_read_by_the_regexes_of_the_request_and_the_last_value_counts(cloud: Any) -> None:
    specification = {
        "TrainingImage": "pytorch",
        "TrainingInputMode": "File",
        "MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.]+)"}, {"Name": "never", "Regex": "never=(.*)"}],
    }
    job = cloud.run_job("print('loss=2.5')\nprint('loss=0.5')", AlgorithmSpecification=specification)
    assert [(metric["MetricName"], metric["Value"]) for metric in job["FinalMetricDataList"]] == [("loss", 0.5)]


def test_the_model_is_packed_and_uploaded_where_the_description_says(cloud: Any) -> None:
    script = "import os; open(os.environ['SM_MODEL_DIR'] + '/weights.bin', 'w').write('w')"
    job = cloud.run_job(script + "\nopen(os.environ['SM_OUTPUT_DATA_DIR'] + '/report.json', 'w').write('{}')")
    assert cloud.files_in(job["ModelArtifacts"]["S3ModelArtifacts"]) == {"weights.bin": b"w"}
    output = f"s3://{cloud.bucket}/jobs/{job['TrainingJobName']}/output/output.tar.gz"
    assert cloud.files_in(output) == {"report.json": b"{}"}


# --- channels -------------------------------------------------------------------------------------------------------

LIST_INPUT = """
import os, json
root = os.environ["SM_CHANNEL_TRAIN"]
files = sorted(os.path.relpath(os.path.join(d, f), root) for d, _, names in os.walk(root) for f in names)
print(json.dumps(files))
"""


def listed(cloud: Any, job: dict[str, Any]) -> list[list[str]]:
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    return [json.loads(line) for line in cloud.lines(GROUP, job["TrainingJobName"] + "/")]


def test_a_prefix_is_downloaded_with_its_folders(cloud: Any) -> None:
    prefix = f"datasets/{cloud.name('data')}"
    for name in ("a/1.txt", "b/2.txt"):
        cloud.put(f"{prefix}/{name}", b"x")
    job = cloud.run_job(LIST_INPUT, InputDataConfig=[cloud.channel("train", f"s3://{cloud.bucket}/{prefix}")])
    assert listed(cloud, job) == [["a/1.txt", "b/2.txt"]]


def test_a_manifest_names_exactly_what_is_downloaded(cloud: Any) -> None:
    prefix = f"datasets/{cloud.name('data')}"
    for name in ("cats and dogs/1.txt", "b/2.txt", "b/not-in-the-manifest.txt"):
        cloud.put(f"{prefix}/files/{name}", b"x")
    entries = [{"prefix": f"s3://{cloud.bucket}/{prefix}/files/"}, "cats and dogs/1.txt", "b/2.txt"]
    manifest = cloud.put(f"{prefix}/train.json", json.dumps(entries).encode())
    channel = cloud.channel("train", manifest, S3DataType="ManifestFile")
    assert listed(cloud, cloud.run_job(LIST_INPUT, InputDataConfig=[channel])) == [["b/2.txt", "cats and dogs/1.txt"]]


def test_a_manifest_that_names_what_is_not_there_fails_the_job(cloud: Any) -> None:
    entries = [{"prefix": f"s3://{cloud.bucket}/datasets/none/"}, "gone.txt"]
    manifest = cloud.put(f"datasets/{cloud.name('m')}.json", json.dumps(entries).encode())
    job = cloud.run_job(HELLO, InputDataConfig=[cloud.channel("train", manifest, S3DataType="ManifestFile")])
    assert job["TrainingJobStatus"] == "Failed"
    assert "gone.txt" in job["FailureReason"]


def test_a_key_that_would_leave_its_folder_fails_the_job(cloud: Any) -> None:
    cloud.put("datasets/evil/../../escaped.txt", b"x")
    entries = [{"prefix": f"s3://{cloud.bucket}/datasets/evil/"}, "../../escaped.txt"]
    manifest = cloud.put(f"datasets/{cloud.name('m')}.json", json.dumps(entries).encode())
    job = cloud.run_job(HELLO, InputDataConfig=[cloud.channel("train", manifest, S3DataType="ManifestFile")])
    assert "would leave the folder" in job["FailureReason"]


def test_sharded_channels_give_each_host_its_own_part(cloud: Any) -> None:
    prefix = f"datasets/{cloud.name('data')}"
    for i in range(5):
        cloud.put(f"{prefix}/{i}.txt", b"x")
    channel = cloud.channel("train", f"s3://{cloud.bucket}/{prefix}/", S3DataDistributionType="ShardedByS3Key")
    resources = {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}
    job = cloud.run_job(LIST_INPUT, InputDataConfig=[channel], ResourceConfig=resources)
    assert sorted(listed(cloud, job)) == [["0.txt", "2.txt", "4.txt"], ["1.txt", "3.txt"]]


def test_a_prefix_without_objects_fails_the_job_in_sagemakers_words(cloud: Any) -> None:
    job = cloud.run_job(HELLO, InputDataConfig=[cloud.channel("train", f"s3://{cloud.bucket}/datasets/nothing/")])
    assert job["TrainingJobStatus"] == "Failed"
    assert "No S3 objects found under S3 URL" in job["FailureReason"]


def test_a_script_that_writes_into_its_input_does_not_write_into_the_next_jobs(cloud: Any) -> None:
    uri = cloud.put(f"datasets/{cloud.name('data')}/a.txt", b"clean").rpartition("/")[0] + "/"
    script = (
        "import os; p = os.environ['SM_CHANNEL_TRAIN'] + '/a.txt'; print(open(p).read()); open(p, 'w').write('bad')"
    )
    jobs = [cloud.run_job(script, InputDataConfig=[cloud.channel("train", uri)]) for _ in range(2)]
    assert [cloud.lines(GROUP, job["TrainingJobName"] + "/") for job in jobs] == [["clean"], ["clean"]]


# --- failure, stop, limits ------------------------------------------------------------------------------------------


def test_a_script_that_raises_fails_the_job_with_its_last_lines(cloud: Any) -> None:
    job = cloud.run_job("print('x' * 5000)\nraise ValueError('the learning rate is a banana')")
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("AlgorithmError: ExecuteUserScriptError:\nExitCode 1")
    assert "ValueError: the learning rate is a banana" in job["FailureReason"]
    assert len(job["FailureReason"]) <= 1024


def test_what_the_script_writes_as_its_failure_is_the_reason(cloud: Any) -> None:
    script = "import os, sys; open(os.environ['SM_OUTPUT_DIR'] + '/failure', 'w').write('out of cheese'); sys.exit(7)"
    assert cloud.run_job(script)["FailureReason"] == "AlgorithmError: out of cheese, exit code: 7"


def test_one_host_that_fails_fails_the_job_and_ends_the_others(cloud: Any) -> None:
    script = "import os, sys, time\nif os.environ['SM_CURRENT_HOST'] == 'algo-2': sys.exit(5)\ntime.sleep(60)"
    resources = {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}
    job = cloud.run_job(script, ResourceConfig=resources)
    assert (job["TrainingJobStatus"], "exit code: 5" in job["FailureReason"]) == ("Failed", True)


def test_an_instance_type_without_capacity_fails_the_job_before_it_is_billed(
    cloud: Any, local_aws: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_aws.account, "types_without_capacity", {"ml.p5.48xlarge"})
    resources = {"InstanceType": "ml.p5.48xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1}
    job = cloud.run_job(HELLO, ResourceConfig=resources)
    assert job["FailureReason"].startswith("CapacityError: Unable to provision requested ML compute capacity")
    assert [phase["Status"] for phase in job["SecondaryStatusTransitions"]] == ["Starting", "Failed"]
    assert (job["BillableTimeInSeconds"], "TrainingStartTime" in job) == (0, False)


# --- several instances ----------------------------------------------------------------------------------------------

TWO = {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}
MEET = """
import os, socket, time
address, host = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])), os.environ["SM_CURRENT_HOST"]
word = os.environ["TRAINING_JOB_NAME"] + " " + host
if host == "algo-1":
    with socket.create_server(address) as server:
        connection, _ = server.accept()
        print("met", connection.recv(100).decode(), flush=True)
        time.sleep(0.5)
else:
    while True:
        try:
            with socket.create_connection(address) as connection:
                connection.sendall(word.encode())
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
"""


def test_hosts_meet_where_the_image_says_and_two_jobs_at_once_do_not(cloud: Any) -> None:
    requests = [cloud.job_request(cloud.program(MEET), ResourceConfig=TWO) for _ in range(2)]
    for request in requests:
        cloud.sagemaker.create_training_job(**request)
    for name in (request["TrainingJobName"] for request in requests):
        assert cloud.job_end(name)["TrainingJobStatus"] == "Completed"
        assert cloud.lines(GROUP, name + "/algo-1-") == [f"met {name} algo-2"]


@pytest.mark.slow
def test_torch_forms_a_process_group_over_the_hosts(cloud: Any) -> None:
    script = """
import json, os
os.environ["GLOO_SOCKET_IFNAME"] = os.environ["SM_NETWORK_INTERFACE_NAME"]
import torch
from torch import distributed
hosts = json.loads(os.environ["SM_HOSTS"])
rank = hosts.index(os.environ["SM_CURRENT_HOST"])
distributed.init_process_group("gloo", rank=rank, world_size=len(hosts))
total = torch.tensor([rank + 1])
distributed.all_reduce(total)
print("total", total.item())
distributed.destroy_process_group()
"""
    job = cloud.run_job(script, ResourceConfig=TWO)
    assert [line for line in cloud.lines(GROUP, job["TrainingJobName"] + "/") if "total" in line] == ["total 3"] * 2


def test_each_host_has_its_own_tree_and_log_stream_and_knows_all_hosts(cloud: Any) -> None:
    script = """
import json, os, pathlib
config = json.loads(pathlib.Path(os.environ["SM_INPUT_CONFIG_DIR"], "resourceconfig.json").read_text())
names = ("SM_CURRENT_HOST", "SM_HOSTS", "SM_NETWORK_INTERFACE_NAME", "NCCL_SOCKET_IFNAME", "MASTER_ADDR")
print(json.dumps([config["current_host"], config["network_interface_name"], *(os.environ[name] for name in names)]))
pathlib.Path(os.environ["SM_MODEL_DIR"], os.environ["SM_CURRENT_HOST"]).write_text(os.environ["SM_MODEL_DIR"])
"""
    job = cloud.run_job(script, ResourceConfig=TWO)
    for host in ("algo-1", "algo-2"):
        (line,) = cloud.lines(GROUP, f"{job['TrainingJobName']}/{host}-")
        assert json.loads(line) == [host, "lo", host, '["algo-1","algo-2"]', "lo", "lo", "127.0.0.1"]
    models = cloud.files_in(job["ModelArtifacts"]["S3ModelArtifacts"])
    assert len(set(models.values())) == len(models) == 2


def test_the_words_of_the_host_that_failed_are_the_reason(cloud: Any) -> None:
    script = "import os, time\nif os.environ['SM_CURRENT_HOST'] == 'algo-2': raise ValueError('out of cheese')"
    script += "\ntime.sleep(60)"
    job = cloud.run_job(script, ResourceConfig=TWO)
    assert "ValueError: out of cheese" in job["FailureReason"]


WAIT = """
import os, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(os.environ["SM_MODEL_DIR"] + "/half.bin", "w").write("half")
print("pids", os.getpid(), child.pid, flush=True)
time.sleep(600)
"""


def pids_of(cloud: Any, name: str) -> list[int]:
    lines = cloud.until(lambda: started_lines(cloud, name), bool)
    return [int(word) for word in lines[0].split()[1:]]


def started_lines(cloud: Any, name: str) -> list[str]:
    try:
        return [line for line in cloud.lines(GROUP, name + "/") if line.startswith("pids")]
    except cloud.logs.exceptions.ResourceNotFoundException:
        return []


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def start(cloud: Any, script: str, **changes: Any) -> str:
    request = cloud.job_request(cloud.program(script), **changes)
    cloud.sagemaker.create_training_job(**request)
    name: str = request["TrainingJobName"]
    return name


def test_a_stopped_job_ends_with_all_its_processes_and_keeps_what_it_had(cloud: Any) -> None:
    name = start(cloud, WAIT)
    pids = pids_of(cloud, name)
    cloud.sagemaker.stop_training_job(TrainingJobName=name)
    job = cloud.job_end(name)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert [is_running(pid) for pid in pids] == [False, False]
    assert cloud.files_in(job["ModelArtifacts"]["S3ModelArtifacts"]) == {"half.bin": b"half"}


def test_a_script_that_is_deaf_to_sigterm_is_killed(
    cloud: Any, local_aws: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingJobs, "stop_grace_seconds", 0.2)
    name = start(cloud, "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + WAIT)
    pids = pids_of(cloud, name)
    cloud.sagemaker.stop_training_job(TrainingJobName=name)
    assert cloud.job_end(name)["TrainingJobStatus"] == "Stopped"
    assert not any(is_running(pid) for pid in pids)


def test_the_time_limit_stops_the_job(cloud: Any) -> None:
    name = start(cloud, WAIT, StoppingCondition={"MaxRuntimeInSeconds": 1})
    job = cloud.job_end(name)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")


def test_a_job_that_has_ended_cannot_be_stopped(cloud: Any) -> None:
    name = cloud.run_job(HELLO)["TrainingJobName"]
    code, message = refused(cloud.sagemaker.stop_training_job, TrainingJobName=name)
    assert (code, "is in status Completed" in message) == ("ValidationException", True)


def test_checkpoints_survive_a_killed_job_and_are_there_for_the_next(cloud: Any) -> None:
    script = """
import os, signal
folder = os.environ["SAGEMAKER_BASE_DIR"] + "/checkpoints"
print(sorted(os.listdir(folder)))
open(folder + "/step", "w").write("100")
if "--die" in __import__("sys").argv: os.kill(os.getpid(), signal.SIGKILL)
"""
    checkpoints = {"S3Uri": f"s3://{cloud.bucket}/checkpoints/{cloud.name('c')}", "LocalPath": "/opt/ml/checkpoints"}
    first = cloud.run_job(script, CheckpointConfig=checkpoints, HyperParameters={"die": "1"})
    second = cloud.run_job(script, CheckpointConfig=checkpoints)
    assert (first["TrainingJobStatus"], second["TrainingJobStatus"]) == ("Failed", "Completed")
    assert cloud.lines(GROUP, second["TrainingJobName"] + "/") == ["['step']"]


# --- what is refused ------------------------------------------------------------------------------------------------


def test_a_name_is_used_once(cloud: Any) -> None:
    request = cloud.job_request(cloud.program(HELLO))
    cloud.sagemaker.create_training_job(**request)
    code, message = refused(cloud.sagemaker.create_training_job, **request)
    assert (code, "must be unique" in message) == ("ResourceInUse", True)


def test_a_role_that_does_not_exist_is_refused_before_there_is_a_job(cloud: Any) -> None:
    request = cloud.job_request(cloud.program(HELLO), RoleArn="arn:aws:iam::123456789012:role/nobody")
    code, message = refused(cloud.sagemaker.create_training_job, **request)
    assert (code, "Could not assume role" in message) == ("ValidationException", True)
    code, _ = refused(cloud.sagemaker.describe_training_job, TrainingJobName=request["TrainingJobName"])
    assert code == "ValidationException"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 0}}, "needs an instance at least"),
        ({"EnableManagedSpotTraining": True}, "EnableManagedSpotTraining"),
        ({"EnableNetworkIsolation": True}, "EnableNetworkIsolation"),
        ({"HyperParameters": {"sagemaker_program": '"../../bin/evil.py"'}}, "relative path"),
        ({"HyperParameters": {"sagemaker_program": ""}}, "script mode"),
    ],
)
def test_what_would_not_happen_is_refused(cloud: Any, change: dict[str, Any], words: str) -> None:
    request = cloud.job_request(cloud.program(HELLO), **change)
    code, message = refused(cloud.sagemaker.create_training_job, **request)
    assert (code, words in message) == ("ValidationException", True)


def test_an_operation_that_is_not_there_says_so(cloud: Any) -> None:
    code, message = refused(cloud.sagemaker.list_processing_jobs)
    assert "does not implement" in message
    assert code


def test_requirements_that_are_not_met_fail_the_job_and_install_nothing(cloud: Any) -> None:
    program = cloud.program(HELLO, **{"requirements.txt": "no-such-package-at-all>=1\n"})
    request = cloud.job_request(program)
    cloud.sagemaker.create_training_job(**request)
    job = cloud.job_end(request["TrainingJobName"])
    assert "no-such-package-at-all>=1" in job["FailureReason"]


def test_a_program_that_would_unpack_outside_its_folder_fails_the_job(cloud: Any) -> None:
    program = cloud.program(HELLO, **{"../../escaped.py": "print()"})
    request = cloud.job_request(program)
    cloud.sagemaker.create_training_job(**request)
    job = cloud.job_end(request["TrainingJobName"])
    assert job["TrainingJobStatus"] == "Failed"
    assert "outside" in job["FailureReason"]


# --- surroundings ---------------------------------------------------------------------------------------------------


def test_a_job_sees_nothing_of_the_environment_it_was_started_from(cloud: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET_TOKEN", "hunter2")
    administrator = os.environ["AWS_ACCESS_KEY_ID"]
    job = cloud.run_job("import os; print(dict(os.environ))")
    text = "\n".join(cloud.lines(GROUP, job["TrainingJobName"] + "/"))
    assert "hunter2" not in text
    assert administrator not in text
    assert "AWS_SESSION_TOKEN" in text


def test_a_job_calls_aws_as_its_role(cloud: Any) -> None:
    script = "import boto3; print(boto3.client('sts').get_caller_identity()['Arn'])"
    job = cloud.run_job(script)
    role = cloud.outputs["TrainingRoleArn"].rpartition("/")[2]
    assert cloud.lines(GROUP, job["TrainingJobName"] + "/")[0].startswith(
        f"arn:aws:sts::123456789012:assumed-role/{role}/"
    )


def test_jobs_are_listed_newest_first_and_by_status(cloud: Any) -> None:
    first, second = cloud.run_job(HELLO), cloud.run_job("raise SystemExit(1)")
    names = [job["TrainingJobName"] for job in cloud.sagemaker.list_training_jobs(MaxResults=2)["TrainingJobSummaries"]]
    assert names == [second["TrainingJobName"], first["TrainingJobName"]]
    pages = cloud.sagemaker.get_paginator("list_training_jobs").paginate(
        StatusEquals="Failed", PaginationConfig={"PageSize": 1}
    )
    listed_names = [job["TrainingJobName"] for page in pages for job in page["TrainingJobSummaries"]]
    assert second["TrainingJobName"] in listed_names
    assert first["TrainingJobName"] not in listed_names


def test_tags_are_kept_and_can_be_changed(cloud: Any) -> None:
    arn = cloud.run_job(HELLO, Tags=[{"Key": "a", "Value": "1"}])["TrainingJobArn"]
    cloud.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "b", "Value": "2"}])
    cloud.sagemaker.delete_tags(ResourceArn=arn, TagKeys=["a"])
    assert cloud.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "b", "Value": "2"}]


def test_boto3s_own_waiter_sees_the_end(cloud: Any) -> None:
    name = start(cloud, HELLO)
    waiter = boto3.client("sagemaker").get_waiter("training_job_completed_or_stopped")
    waiter.wait(TrainingJobName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 30})


def test_a_script_is_asked_to_end_before_it_is_ended(cloud: Any) -> None:
    script = (
        "import signal, sys, time, os\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('asked to end', flush=True), sys.exit(0)))\n"
        "print('pids', os.getpid(), flush=True)\ntime.sleep(600)"
    )
    name = start(cloud, script)
    pids_of(cloud, name)
    cloud.sagemaker.stop_training_job(TrainingJobName=name)
    assert cloud.job_end(name)["TrainingJobStatus"] == "Stopped"
    assert "asked to end" in cloud.lines(GROUP, name + "/")

"""Every call is checked against its caller's policies: who is refused what, in which words, and what attackers try."""

import json
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from deployments.local_aws.policy_command import print_policy
from deployments.local_aws.server import LocalAws
from deployments.local_aws.usage import RECORD_FILE, Use, UseRecord, minimal_policy, read_uses, unused_actions

ACCOUNT = "123456789012"
_numbers = count()


class Caller:
    """Clients with the credentials of one principal, which check nothing themselves."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.keys = {
            "aws_access_key_id": variables["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": variables["AWS_SECRET_ACCESS_KEY"],
            "aws_session_token": variables.get("AWS_SESSION_TOKEN"),
        }
        self.url = variables["AWS_ENDPOINT_URL"]

    def __getattr__(self, service: str) -> Any:
        config = Config(parameter_validation=False, retries={"total_max_attempts": 1})
        return boto3.client(service.replace("_", "-"), config=config, **self.keys)  # type: ignore[call-overload]

    def post(self, service: str, headers: Mapping[str, str], body: bytes, query: str = "") -> httpx.Response:
        """Sign and send what no client of AWS would."""
        request = AWSRequest("POST", f"{self.url}/{query}", dict(headers), body)
        credentials = Credentials(
            str(self.keys["aws_access_key_id"]),
            str(self.keys["aws_secret_access_key"]),
            self.keys["aws_session_token"],
        )
        SigV4Auth(credentials, service, "us-east-1").add_auth(request)
        return httpx.post(f"{self.url}/{query}", headers=dict(request.headers.items()), content=body)


@pytest.fixture(scope="module")
def outputs(local_aws: LocalAws) -> dict[str, str]:
    stack = local_aws.account.client("cloudformation").describe_stacks(StackName="sagemaker-flows")["Stacks"][0]
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


@pytest.fixture(scope="module")
def bucket(outputs: dict[str, str]) -> str:
    s3 = boto3.client("s3")
    for key in ("datasets/a", "jobs/a", "code/a", "other/a"):
        s3.put_object(Bucket=outputs["BucketName"], Key=key, Body=b"content")
    return outputs["BucketName"]


@pytest.fixture(scope="module")
def worker(local_aws: LocalAws) -> Caller:
    return Caller(local_aws.worker_environment)


@pytest.fixture(scope="module")
def job(local_aws: LocalAws, outputs: dict[str, str]) -> Caller:
    return Caller(local_aws.account.role_environment(outputs["TrainingRoleArn"]))


@pytest.fixture(scope="module")
def endpoint(local_aws: LocalAws, outputs: dict[str, str]) -> Caller:
    return Caller(local_aws.account.role_environment(outputs["EndpointRoleArn"]))


@pytest.fixture(scope="module")
def instance(local_aws: LocalAws, instance_role: str) -> Caller:
    return Caller(local_aws.account.role_environment(instance_role, principal="ec2.amazonaws.com"))


@pytest.fixture(scope="module")
def instance_role(outputs: dict[str, str]) -> str:
    profile = boto3.client("iam").get_instance_profile(InstanceProfileName=outputs["InstanceProfileName"])
    return str(profile["InstanceProfile"]["Roles"][0]["Arn"])


@pytest.fixture(params=["worker", "job", "endpoint", "instance"])
def anybody(request: pytest.FixtureRequest) -> Caller:
    caller: Caller = request.getfixturevalue(request.param)
    return caller


@pytest.fixture
def only(local_aws: LocalAws) -> Callable[..., Caller]:
    """Make users to whom these statements are allowed and nothing else."""

    def make(*statements: dict[str, Any]) -> Caller:
        name = f"tester-{next(_numbers)}"
        document = {"Version": "2012-10-17", "Statement": list(statements)}
        credentials = local_aws.account.create_user(name)
        boto3.client("iam").put_user_policy(UserName=name, PolicyName="p", PolicyDocument=json.dumps(document))
        return Caller(local_aws.account.environment(credentials))

    return make


def allow(action: Any, resource: Any = "*", **condition: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource} | ({"Condition": condition} if condition else {})


def refused(call: Any, *arguments: Any, **members: Any) -> dict[str, Any]:
    """Call, and return the error, which must be one of access."""
    with pytest.raises(ClientError) as failure:
        call(*arguments, **members)
    error: dict[str, Any] = dict(failure.value.response)
    code = error["Error"]["Code"]
    assert code in ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"), error
    return error


def words(error: dict[str, Any]) -> str:
    return str(error["Error"]["Message"])


# --- how AWS says no ------------------------------------------------------------------------------------------------


def test_json_services_say_it_so(worker: Caller) -> None:
    error = refused(worker.sagemaker.delete_training_job, TrainingJobName="j")
    assert (error["Error"]["Code"], error["ResponseMetadata"]["HTTPStatusCode"]) == ("AccessDeniedException", 400)
    assert words(error) == (
        f"User: arn:aws:iam::{ACCOUNT}:user/flows-worker is not authorized to perform: sagemaker:DeleteTrainingJob "
        f"on resource: arn:aws:sagemaker:us-east-1:{ACCOUNT}:training-job/j "
        "because no identity-based policy allows the sagemaker:DeleteTrainingJob action"
    )


def test_s3_says_it_so(job: Caller, bucket: str) -> None:
    error = refused(job.s3.get_object, Bucket=bucket, Key="other/a")
    assert (error["Error"]["Code"], error["ResponseMetadata"]["HTTPStatusCode"]) == ("AccessDenied", 403)
    assert words(error).startswith(f"User: arn:aws:sts::{ACCOUNT}:assumed-role/sagemaker-flows-TrainingRole-")
    assert f'/SageMaker is not authorized to perform: s3:GetObject on resource: "arn:aws:s3:::{bucket}/other/a"' in (
        words(error)
    )


def test_ec2_says_it_so(worker: Caller) -> None:
    error = refused(worker.ec2.stop_instances, InstanceIds=["i-1"])
    assert (error["Error"]["Code"], error["ResponseMetadata"]["HTTPStatusCode"]) == ("UnauthorizedOperation", 403)
    assert words(error).startswith("You are not authorized to perform this operation. User: ")
    assert f"ec2:StopInstances on resource: arn:aws:ec2:us-east-1:{ACCOUNT}:instance/i-1 because" in words(error)


def test_query_and_rest_services_say_it_so(worker: Caller, job: Caller) -> None:
    error = refused(worker.iam.delete_role, RoleName="r")
    assert (error["Error"]["Code"], error["ResponseMetadata"]["HTTPStatusCode"]) == ("AccessDenied", 403)
    assert f"iam:DeleteRole on resource: arn:aws:iam::{ACCOUNT}:role/r because" in words(error)
    error = refused(job.sagemaker_runtime.invoke_endpoint, EndpointName="e", Body=b"")
    assert (error["Error"]["Code"], error["ResponseMetadata"]["HTTPStatusCode"]) == ("AccessDeniedException", 403)


def test_an_explicit_deny_is_told_apart(only: Any) -> None:
    caller = only(allow("sagemaker:*"), {"Effect": "Deny", "Action": "sagemaker:Delete*", "Resource": "*"})
    assert caller.sagemaker.list_models()["Models"] is not None
    error = refused(caller.sagemaker.delete_model, ModelName="m")
    assert words(error).endswith(":model/m with an explicit deny in an identity-based policy")


def test_what_cannot_be_evaluated_is_named(only: Any) -> None:
    caller = only(allow("sagemaker:ListModels", StringEquals={"aws:SourceVpc": "vpc-1"}))
    assert "(the local AWS cannot evaluate the condition key aws:SourceVpc)" in words(
        refused(caller.sagemaker.list_models)
    )


def test_an_operation_without_a_resource_names_none(job: Caller) -> None:
    assert "s3:ListAllMyBuckets because no" in words(refused(job.s3.list_buckets))


def test_everybody_may_ask_who_he_is(anybody: Caller, only: Any) -> None:
    """https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html: a deny does not matter."""
    assert anybody.sts.get_caller_identity()["Account"] == ACCOUNT
    denied = only({"Effect": "Deny", "Action": "*", "Resource": "*"})
    assert denied.sts.get_caller_identity()["Account"] == ACCOUNT


# --- what counts ----------------------------------------------------------------------------------------------------


def test_what_is_in_no_table_needs_its_name_on_everything(only: Any) -> None:
    some = only(allow("ec2:*", f"arn:aws:ec2:us-east-1:{ACCOUNT}:instance/*"))
    refused(some.ec2.describe_volumes)
    assert only(allow("ec2:DescribeVolumes")).ec2.describe_volumes()["Volumes"] is not None


def test_policies_of_groups_count_and_changes_count_at_once(only: Any) -> None:
    iam, caller = boto3.client("iam"), only(allow("sts:GetCallerIdentity"))
    name = caller.sts.get_caller_identity()["Arn"].rpartition("/")[2]
    refused(caller.sagemaker.list_models)
    document = json.dumps({"Version": "2012-10-17", "Statement": allow("sagemaker:List*")})
    iam.create_group(GroupName=f"group-of-{name}")
    iam.put_group_policy(GroupName=f"group-of-{name}", PolicyName="p", PolicyDocument=document)
    iam.add_user_to_group(GroupName=f"group-of-{name}", UserName=name)
    assert caller.sagemaker.list_models()["Models"] is not None
    iam.remove_user_from_group(GroupName=f"group-of-{name}", UserName=name)
    refused(caller.sagemaker.list_models)


def test_the_session_of_a_role_that_is_gone_may_nothing(local_aws: LocalAws) -> None:
    iam = boto3.client("iam")
    trust = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    arn = iam.create_role(RoleName="short-lived", AssumeRolePolicyDocument=document)["Role"]["Arn"]
    everything = json.dumps({"Version": "2012-10-17", "Statement": [allow("*")]})
    iam.put_role_policy(RoleName="short-lived", PolicyName="p", PolicyDocument=everything)
    caller = Caller(local_aws.account.role_environment(arn))
    assert caller.sagemaker.list_models()["Models"] is not None
    iam.delete_role_policy(RoleName="short-lived", PolicyName="p")
    iam.delete_role(RoleName="short-lived")
    refused(caller.sagemaker.list_models)


def test_a_session_policy_is_refused_and_not_dropped(outputs: dict[str, str]) -> None:
    session = {"RoleArn": outputs["TrainingRoleArn"], "RoleSessionName": "session"}
    with pytest.raises(ClientError, match="does not implement sts:AssumeRole with session policies"):
        boto3.client("sts").assume_role(**session, Policy="{}")


def test_variables_are_the_callers_own(only: Any, bucket: str) -> None:
    caller = only(allow("s3:*", f"arn:aws:s3:::{bucket}/home/${{aws:username}}/*"))
    name = caller.sts.get_caller_identity()["Arn"].rpartition("/")[2]
    caller.s3.put_object(Bucket=bucket, Key=f"home/{name}/a", Body=b"mine")
    refused(caller.s3.put_object, Bucket=bucket, Key="home/eve/a", Body=b"hers")


def test_head_is_get_and_a_copy_reads_and_writes(only: Any, bucket: str) -> None:
    reads = only(allow("s3:GetObject", f"arn:aws:s3:::{bucket}/datasets/*"))
    assert reads.s3.head_object(Bucket=bucket, Key="datasets/a")["ContentLength"] == 7
    refused(reads.s3.head_object, Bucket=bucket, Key="other/a")
    writes = only(
        allow("s3:GetObject", f"arn:aws:s3:::{bucket}/datasets/*"), allow("s3:PutObject", f"arn:aws:s3:::{bucket}/to/*")
    )
    writes.s3.copy_object(Bucket=bucket, Key="to/a", CopySource=f"{bucket}/datasets/a")
    refused(writes.s3.copy_object, Bucket=bucket, Key="to/a", CopySource=f"{bucket}/other/a")
    refused(reads.s3.copy_object, Bucket=bucket, Key="to/a", CopySource=f"{bucket}/datasets/a")


def test_metrics_go_into_an_allowed_namespace_only(job: Caller) -> None:
    data = [{"MetricName": "m", "Value": 1.0}]
    job.cloudwatch.put_metric_data(Namespace="/aws/sagemaker/TrainingJobs", MetricData=data)
    error = refused(job.cloudwatch.put_metric_data, Namespace="Billing", MetricData=data)
    assert error["Error"]["Code"] == "AccessDenied"


# --- what attackers try ---------------------------------------------------------------------------------------------


def test_a_job_reads_its_inputs_writes_its_results_and_nothing_else(job: Caller, bucket: str) -> None:
    s3 = job.s3
    for prefix in ("datasets", "code", "jobs"):
        assert s3.get_object(Bucket=bucket, Key=f"{prefix}/a")["Body"].read() == b"content"
        assert s3.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/")["KeyCount"] >= 1
    s3.put_object(Bucket=bucket, Key="jobs/b", Body=b"result")
    for key in ("datasets/a", "code/a", "weights/a", "other/a", "jobs", "jobsx/a", "/jobs/a"):
        refused(s3.put_object, Bucket=bucket, Key=key, Body=b"poison")
        refused(s3.create_multipart_upload, Bucket=bucket, Key=key)
        refused(s3.upload_part, Bucket=bucket, Key=key, UploadId="u", PartNumber=1, Body=b"poison")
        refused(s3.delete_object, Bucket=bucket, Key=key)
    refused(s3.delete_bucket, Bucket=bucket)
    refused(s3.list_objects_v2, Bucket=bucket)
    refused(s3.list_objects_v2, Bucket=bucket, Prefix="")
    refused(s3.list_objects_v2, Bucket=bucket, Prefix="other/")
    refused(s3.list_objects, Bucket=bucket)
    refused(s3.list_object_versions, Bucket=bucket, Prefix="jobs/")


def test_a_job_cannot_take_anothers_results_away(job: Caller, bucket: str) -> None:
    refused(job.s3.delete_object, Bucket=bucket, Key="jobs/a")
    refused(job.s3.delete_objects, Bucket=bucket, Delete={"Objects": [{"Key": "jobs/a"}]})
    refused(job.s3.put_object_tagging, Bucket=bucket, Key="jobs/a", Tagging={"TagSet": []})
    refused(job.s3.put_object_acl, Bucket=bucket, Key="jobs/a", ACL="public-read")
    refused(job.s3.put_object, Bucket=bucket, Key="jobs/a", Body=b"", ACL="public-read")


def test_a_job_cannot_open_or_change_the_bucket(job: Caller, bucket: str) -> None:
    refused(job.s3.delete_bucket_policy, Bucket=bucket)
    refused(job.s3.put_bucket_policy, Bucket=bucket, Policy="{}")
    refused(job.s3.delete_public_access_block, Bucket=bucket)
    refused(job.s3.put_bucket_lifecycle_configuration, Bucket=bucket, LifecycleConfiguration={"Rules": []})
    refused(job.s3.create_bucket, Bucket="own")


def test_a_job_starts_invokes_and_stops_nothing(job: Caller, outputs: dict[str, str]) -> None:
    refused(job.sagemaker.create_training_job, **training_job(outputs["TrainingRoleArn"]))
    refused(job.sagemaker.stop_training_job, TrainingJobName="j")
    refused(job.sagemaker.list_training_jobs)
    refused(job.sagemaker_runtime.invoke_endpoint, EndpointName="e", Body=b"")
    refused(job.logs.get_log_events, logGroupName="/aws/ssm/sagemaker-flows", logStreamName="s")
    refused(job.logs.delete_log_group, logGroupName="/aws/sagemaker/TrainingJobs")
    refused(job.ssm.send_command, DocumentName="AWS-RunShellScript", InstanceIds=["i-12345678"])


def test_a_presigned_url_opens_no_more_than_its_signer_may(job: Caller, bucket: str) -> None:
    def url(key: str, version: str) -> str:
        config = Config(signature_version=version, s3={"addressing_style": "path"})
        client: Any = boto3.client("s3", config=config, **job.keys)  # type: ignore[call-overload]
        return str(client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key}))

    for version in ("s3", "s3v4"):
        assert httpx.get(url("datasets/a", version)).text == "content"
        assert httpx.get(url("other/a", version)).status_code == 403


def test_an_endpoint_reads_models_and_writes_nothing(endpoint: Caller, bucket: str) -> None:
    assert endpoint.s3.get_object(Bucket=bucket, Key="jobs/a")["Body"].read() == b"content"
    for key in ("datasets/a", "jobs/a", "checkpoints/a", "other"):
        refused(endpoint.s3.put_object, Bucket=bucket, Key=key, Body=b"poison")
        refused(endpoint.s3.delete_object, Bucket=bucket, Key=key)
    refused(endpoint.s3.get_object, Bucket=bucket, Key="datasets/a")
    refused(endpoint.sagemaker_runtime.invoke_endpoint, EndpointName="other", Body=b"")


def test_an_instance_launches_nothing_and_makes_no_roles(instance: Caller, instance_role: str, bucket: str) -> None:
    refused(instance.ec2.run_instances, ImageId="ami-1", MinCount=1, MaxCount=1)
    refused(instance.ec2.terminate_instances, InstanceIds=["i-1"])
    refused(instance.ec2.describe_instances)
    refused(instance.iam.create_role, RoleName="r", AssumeRolePolicyDocument="{}")
    refused(instance.iam.get_role, RoleName=instance_role.rpartition("/")[2])
    refused(instance.ssm.send_command, DocumentName="AWS-RunShellScript", InstanceIds=["i-12345678"])
    refused(instance.s3.put_object, Bucket=bucket, Key="datasets/a", Body=b"poison")


def training_job(role: str, **changes: Any) -> dict[str, Any]:
    return {
        "TrainingJobName": "attack",
        "AlgorithmSpecification": {"TrainingImage": "pytorch", "TrainingInputMode": "File"},
        "RoleArn": role,
        "OutputDataConfig": {"S3OutputPath": "s3://b/jobs"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        **changes,
    }


def test_the_worker_passes_its_own_roles_to_their_own_services_only(
    worker: Caller, outputs: dict[str, str], instance_role: str
) -> None:
    for role in (instance_role, f"arn:aws:iam::{ACCOUNT}:role/admin"):
        error = refused(worker.sagemaker.create_training_job, **training_job(role))
        assert f"not authorized to perform: iam:PassRole on resource: {role} because" in words(error)
        container = {"Image": "ray", "ModelDataUrl": "s3://b/jobs/m.tar.gz"}
        refused(worker.sagemaker.create_model, ModelName="m", PrimaryContainer=container, ExecutionRoleArn=role)
    definition = {key: value for key, value in training_job(instance_role).items() if key != "TrainingJobName"}
    limits = {"MaxNumberOfTrainingJobs": 1, "MaxParallelTrainingJobs": 1}
    config = {"Strategy": "Random", "ResourceLimits": limits}
    for where in ({"TrainingJobDefinition": definition}, {"TrainingJobDefinitions": [definition]}):
        tuning = {"HyperParameterTuningJobName": "t", "HyperParameterTuningJobConfig": config, **where}
        assert "iam:PassRole" in words(refused(worker.sagemaker.create_hyper_parameter_tuning_job, **tuning))


def launch(outputs: dict[str, str], **changes: Any) -> dict[str, Any]:
    tags = [{"Key": "project", "Value": "sagemaker-flows"}]
    return {
        "ImageId": boto3.client("ec2").describe_images(Owners=["amazon"])["Images"][0]["ImageId"],
        "InstanceType": "m5.large",
        "MinCount": 1,
        "MaxCount": 1,
        "SecurityGroupIds": [outputs["InstanceSecurityGroupId"]],
        "IamInstanceProfile": {"Name": outputs["InstanceProfileName"]},
        "TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume")],
        **changes,
    }


def test_the_worker_launches_what_is_tagged_in_its_own_group_with_its_own_profile(
    worker: Caller, outputs: dict[str, str]
) -> None:
    other = boto3.client("iam")
    other.create_role(
        RoleName="mighty", AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": []})
    )
    other.create_instance_profile(InstanceProfileName="mighty")
    other.add_role_to_instance_profile(InstanceProfileName="mighty", RoleName="mighty")
    tagged = launch(outputs)["TagSpecifications"]
    foreign = [{"ResourceType": "instance", "Tags": [{"Key": "project", "Value": "other"}]}, tagged[1]]
    for changes, said in (
        ({"TagSpecifications": []}, "ec2:RunInstances"),
        ({"TagSpecifications": tagged[:1]}, ":volume/*"),
        ({"TagSpecifications": foreign}, ":instance/*"),
        ({"SecurityGroupIds": []}, ":security-group/*"),
        ({"SecurityGroupIds": ["sg-0"]}, ":security-group/sg-0"),
        ({"IamInstanceProfile": {"Name": "mighty"}}, "iam:PassRole"),
        ({"IamInstanceProfile": {"Arn": f"arn:aws:iam::{ACCOUNT}:instance-profile/mighty"}}, "iam:PassRole"),
        ({"KeyName": "mine"}, ":key-pair/mine"),
    ):
        assert said in words(refused(worker.ec2.run_instances, **launch(outputs, **changes)))


def test_of_a_launch_nothing_is_unclear(
    worker: Caller, outputs: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """What is launched and tagged in one has no tags yet, and that is known."""
    own = worker.ec2.run_instances(**launch(outputs))["Instances"][0]["InstanceId"]
    worker.ec2.terminate_instances(InstanceIds=[own])
    assert "cannot evaluate" not in caplog.text


def test_the_worker_ends_and_commands_its_own_instances_only(worker: Caller, outputs: dict[str, str]) -> None:
    ec2 = boto3.client("ec2")
    foreign = ec2.run_instances(**launch(outputs, TagSpecifications=[]))["Instances"][0]["InstanceId"]
    own = worker.ec2.run_instances(**launch(outputs))["Instances"][0]["InstanceId"]
    project = [{"Key": "project", "Value": "sagemaker-flows"}]
    refused(worker.ec2.terminate_instances, InstanceIds=[foreign])
    refused(worker.ec2.terminate_instances, InstanceIds=[own, foreign])
    refused(worker.ec2.create_tags, Resources=[foreign], Tags=project)
    refused(worker.ec2.delete_tags, Resources=[foreign])
    command = {"DocumentName": "AWS-RunShellScript", "Parameters": {"commands": ["id"]}}
    refused(worker.ssm.send_command, InstanceIds=[foreign], **command)
    refused(worker.ssm.send_command, Targets=[{"Key": "tag:project", "Values": ["other"]}], **command)
    refused(worker.ssm.send_command, InstanceIds=[own], **command | {"DocumentName": "AWS-UpdateSSMAgent"})
    ended = worker.ec2.terminate_instances(InstanceIds=[own])["TerminatingInstances"]
    assert [one["InstanceId"] for one in ended] == [own]
    ec2.terminate_instances(InstanceIds=[foreign])


def test_nobody_lifts_his_own_rights(anybody: Caller, outputs: dict[str, str], bucket: str) -> None:
    iam = anybody.iam
    everything = json.dumps({"Version": "2012-10-17", "Statement": [allow("*")]})
    me = anybody.sts.get_caller_identity()["Arn"].split("/")[1]
    refused(iam.put_user_policy, UserName=me, PolicyName="p", PolicyDocument=everything)
    refused(iam.put_role_policy, RoleName=me, PolicyName="p", PolicyDocument=everything)
    refused(iam.attach_role_policy, RoleName=me, PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess")
    refused(iam.create_policy_version, PolicyArn=outputs["WorkerPolicyArn"], PolicyDocument=everything)
    refused(iam.set_default_policy_version, PolicyArn=outputs["WorkerPolicyArn"], VersionId="v1")
    refused(iam.update_assume_role_policy, RoleName=me, PolicyDocument=everything)
    refused(iam.add_user_to_group, GroupName="g", UserName=me)
    refused(iam.create_access_key, UserName="administrator")
    refused(iam.create_access_key)
    refused(iam.create_user, UserName="me-too")
    refused(anybody.sts.assume_role, RoleArn=outputs["TrainingRoleArn"], RoleSessionName="session")
    for call in ("create_stack", "update_stack", "create_change_set"):
        names = {"StackName": "sagemaker-flows", "TemplateBody": "{}"}
        change = {"ChangeSetName": "change"} if call == "create_change_set" else {}
        refused(getattr(anybody.cloudformation, call), **names, **change)
    refused(anybody.s3.put_bucket_policy, Bucket=bucket, Policy="{}")


def test_who_may_make_stacks_but_not_everything_makes_none(only: Any) -> None:
    """The local CloudFormation makes what a template says with its own rights, not with those of who asks."""
    caller = only(allow(["cloudformation:*", "iam:*"]))
    refused(caller.cloudformation.create_stack, StackName="s", TemplateBody='{"Resources": {}}')


# --- one request, two meanings --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secret_log() -> str:
    logs = boto3.client("logs")
    logs.create_log_group(logGroupName="/secret")
    logs.create_log_stream(logGroupName="/secret", logStreamName="s")
    return "/secret"


def groups() -> list[str]:
    return [group["logGroupName"] for group in boto3.client("logs").describe_log_groups()["logGroups"]]


@pytest.mark.parametrize(
    ("headers", "body", "query"),
    [
        ({"Action": "DeleteLogGroup"}, {}, ""),
        ({}, {"logStreamName": "a&Action=DeleteLogGroup&logGroupName=/secret&b"}, ""),
        ({}, {}, "?Action=DeleteLogGroup&logGroupName=/secret"),
    ],
)
def test_no_second_operation_is_smuggled_past_the_check(
    only: Any, secret_log: str, headers: dict[str, str], body: dict[str, str], query: str
) -> None:
    """moto looks for the operation in the query, then in the body as if it were a form, then in the headers."""
    caller = only(allow("logs:CreateLogStream", f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/own:*"))
    target = {"X-Amz-Target": "Logs_20140328.CreateLogStream", "Content-Type": "application/x-amz-json-1.1"}
    content = json.dumps({"logGroupName": "/own", "logStreamName": "s", **body}).encode()
    caller.post("logs", {**target, **headers}, content, query)
    assert secret_log in groups()


def test_a_form_is_not_written_in_two_places(only: Any) -> None:
    caller = only(allow("iam:GetUser"))
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    body = b"Action=GetUser&Version=2010-05-08&UserName=administrator"
    assert caller.post("iam", form, body).status_code == 200
    for query in ("?Action=CreateUser&UserName=smuggled", "?UserName=smuggled"):
        assert caller.post("iam", form, body, query).status_code in (400, 403)
    caller.post("iam", {**form, "X-Amz-Target": "IAM.CreateUser"}, body)
    caller.post("iam", {**form, "Action": "CreateUser"}, body + b"&Action=CreateUser&UserName=smuggled")
    assert "smuggled" not in [user["UserName"] for user in boto3.client("iam").list_users()["Users"]]


@pytest.mark.parametrize("query", ["location&policy", "location&list-type=2", "tagging&acl", "prefix=a&prefix=b"])
def test_s3_is_asked_for_one_thing_at_a_time(only: Any, bucket: str, query: str) -> None:
    caller = only(allow("s3:*"))
    client = caller.s3
    client.meta.events.register(
        "before-sign.s3", lambda request, **_: setattr(request, "url", f"{request.url.partition('?')[0]}?{query}")
    )
    with pytest.raises(ClientError, match="Conflicting query string parameters"):
        client.get_bucket_location(Bucket=bucket)


# --- who used what --------------------------------------------------------------------------------------------------


def test_what_is_used_is_recorded_once_with_what_was_refused(only: Any, local_aws: LocalAws, bucket: str) -> None:
    caller = only(allow("s3:GetObject", f"arn:aws:s3:::{bucket}/jobs/*"))
    name = caller.sts.get_caller_identity()["Arn"].rpartition(":")[2]
    for _ in range(2):
        caller.s3.get_object(Bucket=bucket, Key="jobs/a")
        refused(caller.s3.get_object, Bucket=bucket, Key="other/a")
    expected = {
        Use(name, "s3:GetObject", f"arn:aws:s3:::{bucket}/{key}/a", allowed=key == "jobs") for key in ("jobs", "other")
    }
    assert {use for use in local_aws.record.uses if use.principal == name} == expected
    path = local_aws.account.root / RECORD_FILE
    assert {use for use in read_uses(path) if use.principal == name} == expected
    assert len([line for line in path.read_text().splitlines() if f'"{name}"' in line]) == 2


def test_the_record_is_of_one_run(tmp_path: Path) -> None:
    record = UseRecord(tmp_path / RECORD_FILE)
    record.add("user/a", "s3:GetObject", "arn:aws:s3:::b/k", allowed=True)
    assert UseRecord(tmp_path / RECORD_FILE).uses == read_uses(tmp_path / RECORD_FILE) == frozenset()


def test_the_smallest_policy_groups_actions_and_has_no_generated_names() -> None:
    logs, ec2 = "arn:aws:logs:us-east-1:1:log-group", "arn:aws:ec2:us-east-1:1"
    resources = {
        "s3:GetObject": ["arn:aws:s3:::b/datasets/1/a.png", "arn:aws:s3:::b/datasets/2/b.png"],
        "s3:PutObject": ["arn:aws:s3:::b/datasets/1/a.png"],
        "s3:ListBucket": ["arn:aws:s3:::b"],
        "sagemaker:CreateEndpoint": ["arn:aws:sagemaker:us-east-1:1:endpoint/flows-1"],
        "logs:PutLogEvents": [f"{logs}:/aws/sagemaker/TrainingJobs:log-stream:x/algo-1"],
        "ec2:RunInstances": [f"{ec2}:security-group/sg-1", f"{ec2}:instance/*"],
    }
    uses = [Use("user/w", action, one, allowed=True) for action, many in resources.items() for one in many]
    uses += [Use("user/w", "iam:CreateUser", "*", allowed=False), Use("user/other", "x:Y", "*", allowed=True)]
    assert [
        (statement["Action"], statement["Resource"]) for statement in minimal_policy(uses, "user/w")["Statement"]
    ] == [
        (["ec2:RunInstances"], [f"{ec2}:instance/*", f"{ec2}:security-group/sg-1"]),
        (["logs:PutLogEvents"], [f"{logs}:/aws/sagemaker/TrainingJobs:*"]),
        (["s3:GetObject", "s3:PutObject"], ["arn:aws:s3:::b/datasets/*"]),
        (["s3:ListBucket"], ["arn:aws:s3:::b"]),
        (["sagemaker:CreateEndpoint"], ["arn:aws:sagemaker:us-east-1:1:endpoint/*"]),
    ]


def test_the_smallest_policy_of_a_run_is_enough_to_run_it_again(only: Any, local_aws: LocalAws, bucket: str) -> None:
    def run(caller: Caller) -> str:
        caller.s3.put_object(Bucket=bucket, Key="jobs/again", Body=b"x")
        caller.sagemaker.list_models()
        return str(caller.sts.get_caller_identity()["Arn"].rpartition(":")[2])

    first = run(only(allow("*")))
    smallest = minimal_policy(local_aws.record.uses, first)
    second = only(*smallest["Statement"])
    run(second)
    refused(second.s3.get_object, Bucket=bucket, Key="jobs/again")


def test_what_a_policy_grants_and_nobody_used_is_found() -> None:
    document = {"Version": "2012-10-17", "Statement": [allow(["s3:Get*", "s3:PutObject"])]}
    uses = [
        Use("role/x-Job-1", "s3:GetObject", "*", allowed=True),
        Use("role/x-Job-1", "s3:PutObject", "*", allowed=False),
        Use("role/x-Other-1", "s3:PutObject", "*", allowed=True),
    ]
    assert unused_actions(document, uses, "-Job-") == {"s3:PutObject"}


def test_the_command_prints_the_policy_of_one_principal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert print_policy(["--root", str(tmp_path)], tmp_path) == 1
    assert "has no record" in capsys.readouterr().err
    record = UseRecord(tmp_path / RECORD_FILE)
    for name in ("user/flows-worker", "role/flows-TrainingRole-1"):
        record.add(name, "s3:GetObject", "arn:aws:s3:::b/k", allowed=True)
    assert print_policy([], tmp_path) == 0
    statement = {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::b/k"]}
    assert json.loads(capsys.readouterr().out)["Statement"] == [statement]
    assert print_policy(["--principal", "flows"], tmp_path) == 1
    assert "role/flows-TrainingRole-1, user/flows-worker" in capsys.readouterr().err

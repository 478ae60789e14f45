"""The foundation: every line of the template can be read back through the API of the service that it is about."""

import json
import subprocess
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.exceptions import ClientError

from deployments.local_aws.cloudformation import check_template_request
from deployments.local_aws.foundation import STACK_NAME, TEMPLATE
from deployments.local_aws.protocol import AwsError
from deployments.local_aws.server import LocalAws


@pytest.fixture(scope="module")
def outputs(local_aws: LocalAws) -> dict[str, str]:
    stack = local_aws.account.client("cloudformation").describe_stacks(StackName=STACK_NAME)["Stacks"][0]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


@pytest.fixture(scope="module")
def bucket(outputs: dict[str, str]) -> str:
    return outputs["BucketName"]


@pytest.fixture(scope="module")
def s3(local_aws: LocalAws) -> Any:
    return local_aws.account.client("s3")


@pytest.fixture
def cloudformation(local_aws: LocalAws) -> Any:
    return local_aws.account.client("cloudformation")


def policies_of(role_arn: str) -> dict[str, Any]:
    iam, name = boto3.client("iam"), role_arn.rpartition("/")[2]
    names = iam.list_role_policies(RoleName=name)["PolicyNames"]
    return {policy: iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"] for policy in names}


def statements(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {statement["Sid"]: statement for statement in document["Statement"]}


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def test_the_template_is_valid_on_aws() -> None:
    finished = subprocess.run(["cfn-lint", str(TEMPLATE)], check=False, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stdout


def test_the_outputs_are_what_the_flows_read(outputs: dict[str, str]) -> None:
    assert outputs["BucketName"] == "sagemaker-flows-123456789012-us-east-1"
    assert set(outputs) == {
        "BucketName",
        "TrainingRoleArn",
        "EndpointRoleArn",
        "WorkerPolicyArn",
        "InstanceProfileName",
        "InstanceSecurityGroupId",
        "CommandLogGroup",
        "FrontEndpointName",
        "LambdaRoleArn",
        "FrontPolicyArn",
        "ReaperRoleArn",
    }


def test_the_bucket_is_encrypted(s3: Any, bucket: str) -> None:
    rules = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rules[0]["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}


def test_the_bucket_takes_tls_only(s3: Any, bucket: str) -> None:
    statement = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"][0]
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:*")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert statement["Resource"] == [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]


def test_its_policy_does_not_lock_loopback_out(s3: Any, bucket: str) -> None:
    """moto takes a deny with a condition for a deny."""
    s3.put_object(Bucket=bucket, Key="jobs/probe", Body=b"1")
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "jobs/probe"}]})
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket, Prefix="jobs/probe")


def test_a_policy_without_a_condition_still_denies(s3: Any) -> None:
    s3.create_bucket(Bucket="denied")
    statement = {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::denied/*"}
    s3.put_bucket_policy(Bucket="denied", Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    s3.put_object(Bucket="denied", Key="a", Body=b"")
    with pytest.raises(ClientError, match="403"):
        s3.get_object(Bucket="denied", Key="a")


def test_the_bucket_is_never_public(s3: Any, bucket: str) -> None:
    block = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    assert block == dict.fromkeys(
        ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
    )
    ownership = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]
    assert ownership["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]


def test_broken_uploads_are_not_paid_for(s3: Any, bucket: str) -> None:
    rule = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"][0]
    assert (rule["Status"], rule["AbortIncompleteMultipartUpload"]) == ("Enabled", {"DaysAfterInitiation": 1})


@pytest.mark.parametrize("output", ["TrainingRoleArn", "EndpointRoleArn"])
def test_only_sagemaker_of_this_account_can_assume_the_roles(outputs: dict[str, str], output: str) -> None:
    role = boto3.client("iam").get_role(RoleName=outputs[output].rpartition("/")[2])["Role"]
    statement = role["AssumeRolePolicyDocument"]["Statement"][0]
    assert statement["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}


def test_a_training_job_writes_its_own_results_only(outputs: dict[str, str], bucket: str) -> None:
    data = statements(policies_of(outputs["TrainingRoleArn"])["data"])
    written = {name for name, statement in data.items() if "s3:PutObject" in listed(statement["Action"])}
    assert written == {"WriteResults"}
    assert data["WriteResults"]["Resource"] == [
        f"arn:aws:s3:::{bucket}/{prefix}/*" for prefix in ("jobs", "checkpoints")
    ]
    read = data["ReadInputs"]["Resource"]
    assert read == [f"arn:aws:s3:::{bucket}/{prefix}/*" for prefix in ("datasets", "code", "weights")]


def test_an_endpoint_writes_nothing_but_logs_and_metrics(outputs: dict[str, str]) -> None:
    policies = policies_of(outputs["EndpointRoleArn"])
    actions = {
        action for policy in policies.values() for one in policy["Statement"] for action in listed(one["Action"])
    }
    writing = {action for action in actions if action.partition(":")[2].startswith(("Put", "Create", "Delete"))}
    assert writing == {"cloudwatch:PutMetricData", "logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"}


def worker_policy(outputs: dict[str, str]) -> dict[str, Any]:
    iam = boto3.client("iam")
    policy = iam.get_policy(PolicyArn=outputs["WorkerPolicyArn"])["Policy"]
    version = iam.get_policy_version(PolicyArn=policy["Arn"], VersionId=policy["DefaultVersionId"])
    document: Any = version["PolicyVersion"]["Document"]
    return dict(document)


def test_the_worker_passes_each_role_to_its_own_service_only(outputs: dict[str, str]) -> None:
    passed = statements(worker_policy(outputs))
    to_sagemaker, to_ec2 = passed["HandRolesToSageMaker"], passed["HandRoleToInstances"]
    assert to_sagemaker["Resource"] == [outputs["TrainingRoleArn"], outputs["EndpointRoleArn"]]
    assert to_sagemaker["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
    assert to_ec2["Resource"] == instance_role(outputs)["Arn"]
    assert to_ec2["Condition"] == {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}


def test_the_workers_policy_fits_into_one(outputs: dict[str, str]) -> None:
    """IAM takes 6,144 characters; the longest names that there are need 400 more than these."""
    assert len(json.dumps(worker_policy(outputs), separators=(",", ":"))) < 6_144 - 400


def test_the_worker_launches_and_ends_tagged_instances_only(outputs: dict[str, str]) -> None:
    allowed = statements(worker_policy(outputs))
    assert allowed["LaunchTagged"]["Condition"] == {"StringEquals": {"aws:RequestTag/project": "sagemaker-flows"}}
    assert allowed["EndOwn"]["Condition"] == {"StringEquals": {"aws:ResourceTag/project": "sagemaker-flows"}}
    assert allowed["OnOwnInstances"]["Condition"] == {"StringEquals": {"ssm:resourceTag/project": "sagemaker-flows"}}
    assert allowed["TagAtLaunch"]["Condition"] == {"StringEquals": {"ec2:CreateAction": "RunInstances"}}
    groups = [one for one in allowed["LaunchWith"]["Resource"] if ":security-group/" in one]
    assert [one.rpartition("/")[2] for one in groups] == [outputs["InstanceSecurityGroupId"]]


def instance_role(outputs: dict[str, str]) -> dict[str, Any]:
    profile = boto3.client("iam").get_instance_profile(InstanceProfileName=outputs["InstanceProfileName"])
    (role,) = profile["InstanceProfile"]["Roles"]
    return dict(role)


def test_an_instance_may_what_a_training_job_may_with_data(outputs: dict[str, str], bucket: str) -> None:
    role = instance_role(outputs)
    assert role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"] == {"Service": "ec2.amazonaws.com"}
    policies = policies_of(role["Arn"])
    assert policies["data"] == policies_of(outputs["TrainingRoleArn"])["data"]
    output = statements(policies["command-output"])
    assert output["WriteOutput"]["Resource"] == f"arn:aws:s3:::{bucket}/commands/*"
    assert all(outputs["CommandLogGroup"] in one for one in output["WriteLogs"]["Resource"])


def test_nobody_opens_a_session_to_an_instance_or_reaches_a_port(outputs: dict[str, str]) -> None:
    actions = {
        one for part in all_statements(policies_of(instance_role(outputs)["Arn"])) for one in listed(part["Action"])
    }
    assert not [action for action in actions if "DataChannel" in action]
    groups = boto3.client("ec2").describe_security_groups(GroupIds=[outputs["InstanceSecurityGroupId"]])
    assert groups["SecurityGroups"][0]["IpPermissions"] == []


def test_the_output_of_commands_is_not_kept_for_ever(outputs: dict[str, str]) -> None:
    groups = boto3.client("logs").describe_log_groups(logGroupNamePrefix=outputs["CommandLogGroup"])["logGroups"]
    assert [(one["logGroupName"], one["retentionInDays"]) for one in groups] == [("/aws/ssm/sagemaker-flows", 30)]


def test_nothing_is_allowed_wholesale() -> None:
    """No `*` action, and a `*` resource only for actions that have no other, each with the reason beside it."""
    nameless = {
        "cloudwatch:GetMetricStatistics",
        "cloudwatch:PutMetricData",
        "ec2:DescribeImages",
        "ec2:DescribeInstanceStatus",
        "ec2:DescribeInstances",
        "application-autoscaling:DescribeScalableTargets",
        "application-autoscaling:DescribeScalingActivities",
        "application-autoscaling:DescribeScalingPolicies",
        "application-autoscaling:DescribeScheduledActions",
        "ec2messages:AcknowledgeMessage",
        "ec2messages:DeleteMessage",
        "ec2messages:FailMessage",
        "ec2messages:GetEndpoint",
        "ec2messages:GetMessages",
        "ec2messages:SendReply",
        "ecr:GetAuthorizationToken",
        "lambda:ListFunctions",
        "pricing:GetProducts",
        "sagemaker:ListEndpointConfigs",
        "sagemaker:ListEndpoints",
        "sagemaker:ListHyperParameterTuningJobs",
        "sagemaker:ListModels",
        "sagemaker:ListTrainingJobs",
        "ssm:CancelCommand",
        "ssm:DescribeInstanceInformation",
        "ssm:GetCommandInvocation",
        "ssm:ListCommandInvocations",
        "ssm:ListCommands",
        "ssmmessages:CreateControlChannel",
        "ssmmessages:OpenControlChannel",
        "sts:GetCallerIdentity",
    }
    template = yaml.load(TEMPLATE.read_text("utf-8"), Loader=LoaderOfTags)  # noqa: S506 - a safe one
    allowed = [one for one in all_statements(template) if one["Effect"] == "Allow"]
    assert len(allowed) > 10
    for statement in allowed:
        actions = listed(statement["Action"])
        assert not [action for action in actions if "*" in action]
        if "*" in listed(statement.get("Resource", [])):
            assert set(actions) <= nameless


class LoaderOfTags(yaml.SafeLoader):
    """Reads !Sub and its like as their plain value."""


LoaderOfTags.add_multi_constructor("!", lambda _loader, _tag, node: str(node.value))


def all_statements(part: Any) -> list[dict[str, Any]]:
    if isinstance(part, dict):
        own = part.get("Statement", [])
        return [*own, *(found for value in part.values() for found in all_statements(value))]
    return [found for item in part for found in all_statements(item)] if isinstance(part, list) else []


@pytest.mark.usefixtures("local_aws")
def test_the_aws_command_line_describes_the_stack() -> None:
    command = ["aws", "cloudformation", "describe-stacks", "--stack-name", STACK_NAME]
    finished = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert json.loads(finished.stdout)["Stacks"][0]["StackName"] == STACK_NAME


def test_the_aws_command_line_deploys_a_template(s3: Any, cloudformation: Any, tmp_path: Path) -> None:
    """By way of a change set, as `aws cloudformation deploy` does."""
    template = tmp_path / "template.yaml"
    template.write_text(
        "Resources: {B: {Type: AWS::S3::Bucket, Properties: {BucketName: !Sub 'by-${AWS::StackName}'}}}\n"
        "Outputs: {Name: {Value: !Ref B}}"
    )
    command = ["aws", "cloudformation", "deploy", "--stack-name", "deployed", "--template-file", str(template)]
    finished = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    assert s3.head_bucket(Bucket="by-deployed")
    (made,) = cloudformation.describe_stacks(StackName="deployed")["Stacks"]
    assert made["Outputs"] == [{"OutputKey": "Name", "OutputValue": "by-deployed"}]


def stack(cloudformation: Any, name: str, resources: dict[str, Any], **more: Any) -> Any:
    return cloudformation.create_stack(StackName=name, TemplateBody=json.dumps({"Resources": resources, **more}))


@pytest.mark.parametrize(
    ("resources", "named"),
    [
        ({"Net": {"Type": "AWS::EC2::VPC"}}, "the resource type AWS::EC2::VPC"),
        ({"Own": {"Type": "Custom::Thing"}}, "the resource type Custom::Thing"),
        (
            {"B": {"Type": "AWS::S3::Bucket", "Properties": {"CorsConfiguration": {"CorsRules": []}}}},
            "the property CorsConfiguration of AWS::S3::Bucket",
        ),
        (
            {"R": {"Type": "AWS::IAM::Role", "Properties": {"ManagedPolicyArns": []}}},
            "the property ManagedPolicyArns of AWS::IAM::Role",
        ),
        (
            {
                "B": {
                    "Type": "AWS::S3::Bucket",
                    "Properties": {"LifecycleConfiguration": {"Rules": [{"TagFilters": []}]}},
                }
            },
            "TagFilters of a lifecycle rule",
        ),
        ({"B": {"Type": "AWS::S3::Bucket", "CreationPolicy": {}}}, "CreationPolicy of a resource"),
        (
            {"G": {"Type": "AWS::EC2::SecurityGroup", "Properties": {"SecurityGroupEgress": []}}},
            "the property SecurityGroupEgress of AWS::EC2::SecurityGroup",
        ),
    ],
)
def test_what_would_be_dropped_is_refused(cloudformation: Any, resources: dict[str, Any], named: str) -> None:
    with pytest.raises(ClientError, match=f"does not implement .*{named}"):
        stack(cloudformation, "refused", resources)
    with pytest.raises(ClientError, match="does not exist"):
        cloudformation.describe_stacks(StackName="refused")


@pytest.mark.parametrize(
    "body",
    [
        "Resources: !!python/object/apply:os.system ['touch /tmp/owned']",
        "Resources: {B: {Type: AWS::S3::Bucket, Properties: {BucketName: !!python/name:os.system ''}}}",
        "%TAG ! tag:yaml.org,2002:python/\n---\nResources: {B: {Type: AWS::S3::Bucket, X: !name:os.system ''}}",
        "Resources: [",
        "just text",
        "{}",
        '{"Resources": 1}',
    ],
)
def test_a_template_is_data_and_never_code(body: str) -> None:
    """moto reads templates with PyYAML's unsafe loader."""
    with pytest.raises(AwsError, match="Template format error"):
        check_template_request({"TemplateBody": body})


def test_an_updated_stack_is_updated_in_every_part(cloudformation: Any, s3: Any) -> None:
    def resources(days: int, action: str) -> dict[str, Any]:
        statement = {"Effect": "Allow", "Action": action, "Resource": "arn:aws:s3:::x/*"}
        document = {"Version": "2012-10-17", "Statement": [statement]}
        trust = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
        rule = {"Status": "Enabled", "ExpirationInDays": days, "Prefix": "tmp/"}
        return {
            "B": {
                "Type": "AWS::S3::Bucket",
                "Properties": {"BucketName": "updated", "LifecycleConfiguration": {"Rules": [rule]}},
            },
            "R": {
                "Type": "AWS::IAM::Role",
                "Properties": {
                    "RoleName": "updated",
                    "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]},
                    "Policies": [{"PolicyName": "p", "PolicyDocument": document}],
                },
            },
            "M": {
                "Type": "AWS::IAM::ManagedPolicy",
                "Properties": {"ManagedPolicyName": "updated", "PolicyDocument": document},
            },
        }

    stack(cloudformation, "updated", resources(1, "s3:GetObject"))
    for days, action in ((2, "s3:PutObject"), (3, "s3:ListBucket")):
        cloudformation.update_stack(
            StackName="updated", TemplateBody=json.dumps({"Resources": resources(days, action)})
        )
        rule = s3.get_bucket_lifecycle_configuration(Bucket="updated")["Rules"][0]
        assert (rule["Expiration"], rule["Filter"]) == ({"Days": days}, {"Prefix": "tmp/"})
        assert policies_of("role/updated")["p"]["Statement"][0]["Action"] == action
        assert current_action("arn:aws:iam::123456789012:policy/updated") == action
    cloudformation.delete_stack(StackName="updated")
    assert "updated" not in [one["Name"] for one in s3.list_buckets()["Buckets"]]


def test_an_updated_log_group_and_profile_are_updated_in_place(cloudformation: Any) -> None:
    """moto would forget both."""
    iam, logs = boto3.client("iam"), boto3.client("logs")
    trust = json.dumps({"Version": "2012-10-17", "Statement": []})
    for role in ("of-one", "of-two"):
        iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust)

    def resources(days: int, role: str) -> dict[str, Any]:
        profile = {"InstanceProfileName": "updated", "Roles": [role]}
        return {
            "L": {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": "updated", "RetentionInDays": days}},
            "P": {"Type": "AWS::IAM::InstanceProfile", "Properties": profile},
        }

    stack(cloudformation, "in-place", resources(1, "of-one"))
    body = json.dumps({"Resources": resources(7, "of-two")})
    cloudformation.update_stack(StackName="in-place", TemplateBody=body)
    assert logs.describe_log_groups(logGroupNamePrefix="updated")["logGroups"][0]["retentionInDays"] == 7
    profile = iam.get_instance_profile(InstanceProfileName="updated")["InstanceProfile"]
    assert [role["RoleName"] for role in profile["Roles"]] == ["of-two"]
    cloudformation.delete_stack(StackName="in-place")
    assert logs.describe_log_groups(logGroupNamePrefix="updated")["logGroups"] == []


def current_action(policy_arn: str) -> str:
    iam = boto3.client("iam")
    version = iam.get_policy(PolicyArn=policy_arn)["Policy"]["DefaultVersionId"]
    document: Any = iam.get_policy_version(PolicyArn=policy_arn, VersionId=version)["PolicyVersion"]["Document"]
    return str(document["Statement"][0]["Action"])


def test_the_foundation_survives_without_the_data_when_the_stack_goes(cloudformation: Any, s3: Any) -> None:
    """DeletionPolicy Retain: a deleted stack never takes data with it."""
    template = Path(TEMPLATE).read_text("utf-8").replace("BucketName: !Sub sagemaker-flows-", "BucketName: !Sub kept-")
    cloudformation.create_stack(StackName="kept", TemplateBody=template, Capabilities=["CAPABILITY_IAM"])
    cloudformation.delete_stack(StackName="kept")
    assert s3.head_bucket(Bucket="kept-123456789012-us-east-1")

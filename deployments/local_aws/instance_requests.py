"""What of EC2's requests for instances is there, and how a launch is written for moto."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from moto.ec2.utils import convert_tag_spec, parse_user_data

from deployments.local_aws.protocol import AwsError
from deployments.local_aws.refusals import Supported

MOST_USER_DATA_BYTES = 16 * 1024
_DEFAULT_DISK = {"VolumeSize": 15, "VolumeType": "gp3", "Encrypted": False, "DeleteOnTermination": True}

SUPPORTED: Mapping[str, Supported] = {
    "RunInstances": Supported(
        honoured=(
            "ClientToken",
            "DryRun",
            "IamInstanceProfile",
            "ImageId",
            "InstanceInitiatedShutdownBehavior",
            "InstanceType",
            "MaxCount",
            "MinCount",
            "Placement.AvailabilityZone",
            "SecurityGroupIds",
            "SubnetId",
            "TagSpecifications.Tags",
            "UserData",
        ),
        # There are no disks and networks to choose here, no metadata service, and nothing is billed or interrupted.
        recorded=(
            "BlockDeviceMappings.DeviceName",
            "BlockDeviceMappings.Ebs.DeleteOnTermination",
            "BlockDeviceMappings.Ebs.Encrypted",
            "BlockDeviceMappings.Ebs.KmsKeyId",
            "BlockDeviceMappings.Ebs.VolumeSize",
            "BlockDeviceMappings.Ebs.VolumeType",
            "EbsOptimized",
            "InstanceMarketOptions.SpotOptions.MaxPrice",
            "MetadataOptions",
            "Monitoring.Enabled",
            "NetworkInterfaces.AssociatePublicIpAddress",
            "NetworkInterfaces.DeleteOnTermination",
            "NetworkInterfaces.DeviceIndex",
            "NetworkInterfaces.Groups",
            "NetworkInterfaces.SubnetId",
        ),
        only={
            "DisableApiStop": (False,),
            "DisableApiTermination": (False,),
            "HibernationOptions.Configured": (False,),
            "InstanceMarketOptions.MarketType": ("spot",),
            "InstanceMarketOptions.SpotOptions.InstanceInterruptionBehavior": ("terminate",),
            "InstanceMarketOptions.SpotOptions.SpotInstanceType": ("one-time",),
            "TagSpecifications.ResourceType": ("instance", "volume"),
        },
    ),
    "TerminateInstances": Supported(honoured=("InstanceIds", "DryRun"), only={"Force": (False,)}),
    "StopInstances": Supported(honoured=("InstanceIds", "DryRun"), only={"Force": (False,), "Hibernate": (False,)}),
    "StartInstances": Supported(honoured=("InstanceIds", "DryRun")),
}


def check_request(operation: str, request: Mapping[str, Any]) -> None:
    """Refuse a request that asks for what would not happen.

    Raises:
        AwsError: UnsupportedOperation; or DryRunOperation, which is how EC2 says yes to a dry run.
    """
    SUPPORTED[operation].check(operation, request, "UnsupportedOperation")
    if request.get("DryRun"):
        code, message = "DryRunOperation", "Request would have succeeded, but DryRun flag is set."
        raise AwsError(code, message, 412)


def check_counts(request: Mapping[str, Any]) -> None:
    """Refuse a launch of no instances, and one whose most is less than its least.

    Raises:
        AwsError: InvalidParameterValue.
    """
    code = "InvalidParameterValue"
    if request["MinCount"] < 1:
        raise AwsError(code, f"Value ({request['MinCount']}) for parameter minCount is invalid. It must be at least 1")
    if request["MaxCount"] < request["MinCount"]:
        message = f"Value ({request['MaxCount']}) for parameter maxCount is invalid. It must not be less than minCount"
        raise AwsError(code, message)


def user_data(request: Mapping[str, Any]) -> bytes | None:
    """Return the script that a launch asks to be run at boot.

    Raises:
        AwsError: InvalidParameterValue: it is no base64, or too long. UnsupportedOperation: it is no script.
    """
    if not request.get("UserData"):
        return None
    code = "InvalidParameterValue"
    try:
        script = base64.b64decode(request["UserData"], validate=True)
    except binascii.Error as error:
        message = "Invalid BASE64 encoding of user data."
        raise AwsError(code, message) from error
    if len(script) > MOST_USER_DATA_BYTES:
        raise AwsError(code, f"User data is limited to {MOST_USER_DATA_BYTES} bytes")
    if not script.startswith(b"#!"):
        code, message = "UnsupportedOperation", "The local AWS runs user data that begins with #!, and no other kind"
        raise AwsError(code, message)
    return script


def launch_arguments(request: Mapping[str, Any], region: str, root_device: str) -> dict[str, Any]:
    """Return what moto's run_instances takes, of a launch without its instance profile."""
    behaviour = request.get("InstanceInitiatedShutdownBehavior", "stop")
    market = request.get("InstanceMarketOptions", {}).get("MarketType")
    return {
        "image_id": request["ImageId"],
        "count": request["MaxCount"],
        "user_data": parse_user_data(request.get("UserData")),
        "security_group_names": [] if {"SecurityGroupIds", "NetworkInterfaces"} & request.keys() else ["default"],
        "security_group_ids": request.get("SecurityGroupIds", []),
        "instance_type": request.get("InstanceType", "m1.small"),
        "is_instance_type_default": "InstanceType" not in request,
        "placement": request.get("Placement", {}).get("AvailabilityZone"),
        "region_name": region,
        "subnet_id": request.get("SubnetId"),
        "nics": request.get("NetworkInterfaces", []),
        "tags": convert_tag_spec(request.get("TagSpecifications", [])),
        "ebs_optimized": request.get("EbsOptimized", False),
        "instance_market_options": market,
        "instance_initiated_shutdown_behavior": behaviour,
        "monitoring_state": "enabled" if request.get("Monitoring", {}).get("Enabled") else "disabled",
        "metadata_options": request.get("MetadataOptions", {}),
        "client_token": request.get("ClientToken", ""),
        "block_device_mappings": _disks(request.get("BlockDeviceMappings", []), root_device),
    }


def _disks(mappings: list[dict[str, Any]], root_device: str) -> list[dict[str, Any]]:
    asked = {mapping.get("DeviceName", root_device): mapping.get("Ebs", {}) for mapping in mappings}
    return [{"DeviceName": name, "Ebs": _DEFAULT_DISK | ebs} for name, ebs in ({root_device: {}} | asked).items()]

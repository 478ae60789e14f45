"""AWS's Deep Learning AMIs: images that EC2 knows, and the public SSM parameters that name them.

https://docs.aws.amazon.com/dlami/latest/devguide/find-dlami-id.html
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime

from moto.ec2.models import ec2_backends
from moto.ec2.models.amis import Ami
from moto.ssm.models import Parameter, ssm_backends

from deployments.local_aws.account import Account

_OWNER = "898082745236"  # the account that publishes them
_CREATED = datetime(2026, 7, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Platform:
    """The operating system of an image, as its SSM agent reports it, and whose home it has."""

    name: str
    version: str
    user: str
    root_device: str


UBUNTU = Platform("Ubuntu", "24.04", "ubuntu", "/dev/sda1")
AMAZON_LINUX = Platform("Amazon Linux", "2023", "ec2-user", "/dev/xvda")
_IMAGES = {
    "oss-nvidia-driver-gpu-pytorch-2.10-ubuntu-24.04": (
        "Deep Learning OSS Nvidia Driver AMI GPU PyTorch 2.10 (Ubuntu 24.04) 20260701",
        UBUNTU,
    ),
    "oss-nvidia-driver-gpu-pytorch-2.11-amazon-linux-2023": (
        "Deep Learning OSS Nvidia Driver AMI GPU PyTorch 2.11 (Amazon Linux 2023) 20260701",
        AMAZON_LINUX,
    ),
}


def publish_deep_learning_amis(account: Account) -> None:
    """Make EC2 know the images, and SSM the parameters with their ids."""
    ec2 = ec2_backends[account.account_id][account.region]
    parameters = ssm_backends[account.account_id][account.region]._parameters  # noqa: SLF001 - put_parameter refuses /aws
    for family, (name, platform) in _IMAGES.items():
        image_id = _image_id(family)
        ec2.amis[image_id] = Ami(
            ec2,
            image_id,
            name=name,
            description=name,
            owner_id=_OWNER,
            owner_alias="amazon",
            public=True,
            virtualization_type="hvm",
            architecture="x86_64",
            creation_date=_CREATED,
            root_device_type="ebs",
            root_device_name=platform.root_device,
            region_name=f"{account.region}a",
        )
        parameter = _parameter(account, f"/aws/service/deeplearning/ami/x86_64/{family}/latest/ami-id", image_id)
        parameters[parameter.name].append(parameter)


def platform_of(image_id: str) -> Platform:
    """Return the platform of an image; all others that EC2 knows here count as Amazon's own."""
    return next((platform for family, (_, platform) in _IMAGES.items() if _image_id(family) == image_id), AMAZON_LINUX)


def _image_id(family: str) -> str:
    return f"ami-0{hashlib.sha256(family.encode()).hexdigest()[:16]}"


def _parameter(account: Account, name: str, value: str) -> Parameter:
    return Parameter(  # type: ignore[abstract] # moto makes its own in the same way
        account_id=account.account_id,
        name=name,
        value=value,
        parameter_type="String",
        description=None,
        allowed_pattern=None,
        keyid=None,
        last_modified_date=_CREATED,
        version=1,
        data_type="text",
    )

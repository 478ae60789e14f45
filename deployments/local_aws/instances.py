"""EC2's instances: launched, stopped, started, terminated. What Describe operations tell of them is moto's to tell."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from moto.core.exceptions import ServiceException
from moto.ec2 import utils as ec2_utils
from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models.instances import Reservation
from moto.iam.exceptions import NotFoundException
from moto.iam.models import InstanceProfile, iam_backends

from deployments.local_aws.account import Account
from deployments.local_aws.instance import STATE_CODES, Instance
from deployments.local_aws.instance_requests import check_counts, check_request, launch_arguments, user_data
from deployments.local_aws.instance_shell import remove_abandoned
from deployments.local_aws.moto_records import described
from deployments.local_aws.protocol import AwsError, Operation

# What moto is left to answer: it keeps and tells these things truly, and pretends most of the others.
INSTANCE_STATE_OPERATIONS = frozenset(
    {
        "AuthorizeSecurityGroupEgress",
        "AuthorizeSecurityGroupIngress",
        "CreateSecurityGroup",
        "CreateTags",
        "DeleteSecurityGroup",
        "DeleteTags",
        "DescribeAvailabilityZones",
        "DescribeImages",
        "DescribeInstanceAttribute",
        "DescribeInstanceStatus",
        "DescribeInstanceTypeOfferings",
        "DescribeInstanceTypes",
        "DescribeInstances",
        "DescribeRegions",
        "DescribeSecurityGroupRules",
        "DescribeSecurityGroups",
        "DescribeSubnets",
        "DescribeTags",
        "DescribeVolumes",
        "DescribeVpcs",
        "RevokeSecurityGroupEgress",
        "RevokeSecurityGroupIngress",
    }
)


class Instances:
    """The instances of an account.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self._instances: dict[str, Instance] = {}
        self._launches: dict[str, tuple[dict[str, Any], Reservation]] = {}  # by client token
        self._lock = threading.RLock()
        remove_abandoned(account.root / "instances")
        # Filters of DescribeInstances that moto does not know.
        ec2_utils.filter_dict_attribute_mapping |= {"client-token": "client_token", "instance-lifecycle": "lifecycle"}

    def operations(self) -> dict[str, Operation]:
        """Return its operations by their API names."""
        return {
            "RunInstances": self.run,
            "TerminateInstances": self.terminate,
            "StopInstances": self.stop_instances,
            "StartInstances": self.start,
        }

    def find(self, instance_id: str) -> Instance | None:
        """Return the instance of that id, terminated ones too."""
        return self._instances.get(instance_id)

    def __iter__(self) -> Iterator[Instance]:
        with self._lock:
            return iter(list(self._instances.values()))

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Launch instances, unless this client token has launched them already."""
        check_request("RunInstances", request)
        token = request.get("ClientToken", "")
        with self._lock:
            if token not in self._launches:
                reservation = self._launch(request)
                if not token:
                    return self._described(reservation)
                self._launches[token] = request, reservation
            asked, reservation = self._launches[token]
        if asked != request:
            code = "IdempotentParameterMismatch"
            message = (
                "Arguments on this idempotent request are inconsistent with arguments used in previous request(s)."
            )
            raise AwsError(code, message)
        return self._described(reservation)

    def terminate(self, request: dict[str, Any]) -> dict[str, Any]:
        """Begin to end instances; the state is terminated when nothing of them runs any more."""
        check_request("TerminateInstances", request)
        return {"TerminatingInstances": [_change(one, lambda it: it.end("terminated")) for one in self._asked(request)]}

    def stop_instances(self, request: dict[str, Any]) -> dict[str, Any]:
        """Begin to stop instances; their folders stay."""
        check_request("StopInstances", request)
        instances = self._asked(request)
        for instance in instances:
            _require_state(instance, "running", "stopping", "stopped")
            if instance.record.lifecycle == "spot":
                code = "UnsupportedOperation"
                message = f"You can't stop the Spot Instance '{instance.id}' because it is associated with a one-time "
                raise AwsError(
                    code,
                    message + "Spot Instance request. You can only stop Spot Instances associated with "
                    "persistent Spot Instance requests.",
                )
        return {"StoppingInstances": [_change(one, lambda it: it.end("stopped")) for one in instances]}

    def start(self, request: dict[str, Any]) -> dict[str, Any]:
        """Begin to start stopped instances; what runs already goes on."""
        check_request("StartInstances", request)
        instances = self._asked(request)
        for instance in instances:
            _require_state(instance, "stopped", "pending", "running")
            self._require_capacity(str(instance.record.instance_type), is_spot=False)
        return {"StartingInstances": [_change(one, _start) for one in instances]}

    def stop(self) -> None:
        """End every process of every instance."""
        for instance in self:
            instance.shutdown_grace_seconds = 0.0
            instance.end("terminated")
        for instance in self:
            instance.join()

    @property
    def _ec2(self) -> EC2Backend:
        return ec2_backends[self._account.account_id][self._account.region]

    def _launch(self, request: dict[str, Any]) -> Reservation:
        check_counts(request)
        script = user_data(request)
        image = self._image(request)
        profile = self._profile(request.get("IamInstanceProfile"))
        is_spot = "InstanceMarketOptions" in request
        self._require_capacity(request.get("InstanceType", "m1.small"), is_spot=is_spot)
        with _refused_by_moto():
            reservation = self._ec2.run_instances(
                **launch_arguments(request, self._account.region, image.root_device_name),
                iam_instance_profile={"Arn": profile.arn, "Id": profile.id} if profile else None,
            )
        role_arn = profile.roles[0].arn if profile and profile.roles else None
        for record in reservation.instances:
            instance = self._instances[record.id] = Instance(self._account, record, script, role_arn)
            instance.boot(first=True)
        return reservation

    def _image(self, request: dict[str, Any]) -> Any:
        image_id = request.get("ImageId")
        if image_id is None:
            code, message = "MissingParameter", "The request must contain the parameter ImageId"
            raise AwsError(code, message)
        with _refused_by_moto():
            return self._ec2.describe_images([image_id])[0]

    def _profile(self, asked: dict[str, str] | None) -> InstanceProfile | None:
        """Return IAM's instance profile that a launch names.

        Raises:
            AwsError: InvalidParameterValue: there is none.
        """
        if not asked:
            return None
        iam = iam_backends[self._account.account_id]["aws"]
        try:
            if "Arn" in asked:
                return iam.get_instance_profile_by_arn(asked["Arn"])
            return iam.get_instance_profile(asked["Name"])
        except NotFoundException as error:
            kind, value = ("arn", asked["Arn"]) if "Arn" in asked else ("name", asked["Name"])
            code, words = (
                "InvalidParameterValue",
                "Invalid IAM Instance Profile " + ("ARN" if kind == "arn" else "name"),
            )
            raise AwsError(
                code, f"Value ({value}) for parameter iamInstanceProfile.{kind} is invalid. {words}"
            ) from error

    def _require_capacity(self, instance_type: str, *, is_spot: bool) -> None:
        missing = self._account.types_without_capacity
        code, zone = "InsufficientInstanceCapacity", f"{self._account.region}a"
        message = ""
        if is_spot and {instance_type, f"spot:{instance_type}"} & missing:
            message = "There is no Spot capacity available that matches your request."
        elif instance_type in missing:
            message = (
                f"We currently do not have sufficient {instance_type} capacity in the Availability Zone you requested "
                f"({zone}). Our system will be working on provisioning additional capacity."
            )
        if message:
            raise AwsError(code, message, 500)  # AWS's own status; clients repeat it

    def _asked(self, request: dict[str, Any]) -> list[Instance]:
        missing = [name for name in request["InstanceIds"] if name not in self._instances]
        if missing:
            code = "InvalidInstanceID.NotFound"
            one = f"The instance ID '{missing[0]}' does not exist"
            raise AwsError(code, one if len(missing) == 1 else f"The instance IDs '{', '.join(missing)}' do not exist")
        return [self._instances[name] for name in request["InstanceIds"]]

    def _described(self, reservation: Reservation) -> dict[str, Any]:
        instances = [described(record, "ec2", "Instance") for record in reservation.instances]
        return {"ReservationId": reservation.id, "OwnerId": self._account.account_id, "Instances": instances}


def _start(instance: Instance) -> None:
    if instance.state == "stopped":
        instance.boot(first=False)


def _change(instance: Instance, change: Any) -> dict[str, Any]:
    before = instance.state
    change(instance)
    return {"InstanceId": instance.id, "PreviousState": _state(before), "CurrentState": _state(instance.state)}


def _state(name: str) -> dict[str, Any]:
    return {"Code": STATE_CODES[name], "Name": name}


def _require_state(instance: Instance, *states: str) -> None:
    if instance.state not in states:
        code, message = (
            "IncorrectInstanceState",
            f"The instance '{instance.id}' is not in a state from which it can be changed so: {instance.state}.",
        )
        raise AwsError(code, message)


@contextmanager
def _refused_by_moto() -> Iterator[None]:
    try:
        yield
    except ServiceException as error:
        raise AwsError(error.code, error.message) from error

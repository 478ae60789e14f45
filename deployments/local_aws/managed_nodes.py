"""Systems Manager's nodes: the instances whose agent has registered."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from deployments.local_aws.command_requests import page
from deployments.local_aws.instance import Instance
from deployments.local_aws.instances import Instances
from deployments.local_aws.protocol import AwsError, Operation

_PAGE = 10
_AGENT_VERSION = "3.3.3050.0"


class ManagedNodes:
    """The nodes of an account.

    https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_DescribeInstanceInformation.html
    """

    def __init__(self, account_id: str, instances: Instances) -> None:
        self._account_id, self._instances = account_id, instances

    def operations(self) -> dict[str, Operation]:
        """Return its operations by their API names."""
        return {"DescribeInstanceInformation": self.describe}

    def describe(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return a page of the nodes; terminated ones are forgotten."""
        nodes = [one for one in self._instances if one.registered is not None and one.state != "terminated"]
        found = [information for node in nodes if _is_asked(information := _information(node), node, request)]
        return page(request, "InstanceInformationList", found, _PAGE)

    def reached(self, instance_id: str) -> Instance:
        """Return the instance of a node whose agent is online.

        Raises:
            AwsError: InvalidInstanceId: there is none.
        """
        instance = self._instances.find(instance_id)
        if instance is None or not instance.agent_is_online:
            code = "InvalidInstanceId"
            message = f"Instances [[{instance_id}]] not in a valid state for account {self._account_id}"
            raise AwsError(code, message)
        return instance


def _information(node: Instance) -> dict[str, Any]:
    return {
        "InstanceId": node.id,
        "PingStatus": "Online" if node.agent_is_online else "ConnectionLost",
        "LastPingDateTime": datetime.now(UTC) if node.agent_is_online else node.registered,
        "AgentVersion": _AGENT_VERSION,
        "IsLatestVersion": True,
        "PlatformType": "Linux",
        "PlatformName": node.platform.name,
        "PlatformVersion": node.platform.version,
        "ResourceType": "EC2Instance",
        "IPAddress": node.record.private_ip_address,
        "ComputerName": node.record.private_dns_name,
    }


def _is_asked(information: Mapping[str, Any], node: Instance, request: Mapping[str, Any]) -> bool:
    asked = [(one["Key"], one["Values"]) for one in request.get("Filters", [])]
    asked += [(one["key"], one["valueSet"]) for one in request.get("InstanceInformationFilterList", [])]
    return all(_information_value(key, information, node) in values for key, values in asked)


def _information_value(key: str, information: Mapping[str, Any], node: Instance) -> Any:
    names = {"InstanceIds": "InstanceId", "PingStatus": "PingStatus", "PlatformTypes": "PlatformType"}
    names |= {"ResourceType": "ResourceType", "AgentVersion": "AgentVersion"}
    if key in names:
        return information[names[key]]
    if key.startswith("tag:"):
        tags = {tag["key"]: tag["value"] for tag in node.record.get_tags()}
        return tags.get(key.removeprefix("tag:"))
    code = "InvalidFilterKey"
    raise AwsError(code, f"The local AWS does not implement the filter {key}")

"""How many servers a variant is to have and which share of the requests: as asked for, or kept over an update."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from deployments.local_aws.fleets import Fleet
from deployments.local_aws.records import invalid

_INITIAL = {"DesiredInstanceCount": "InitialInstanceCount", "DesiredWeight": "InitialVariantWeight"}


@dataclass(frozen=True)
class CapacityChange:
    """What a variant is to be like."""

    variant: str
    instances: int
    weight: float

    def desired(self) -> dict[str, Any]:
        """Return what DescribeEndpoint says of it while it changes."""
        return {"DesiredInstanceCount": self.instances, "DesiredWeight": self.weight}


def accepted_changes(asked: Iterable[Mapping[str, Any]], fleet: Fleet) -> list[CapacityChange]:
    """Return the changes of an UpdateEndpointWeightsAndCapacities; what it does not name stays as it is.

    Raises:
        AwsError: There is no such variant, or it cannot have so many servers.
    """
    changes = []
    for one in asked:
        name = one["VariantName"]
        if not fleet.has(name):
            message = f'The requested variant(s) "{name}" do not exist in the endpoint.'
            raise invalid(message)
        instances = one.get("DesiredInstanceCount", fleet.count(name))
        fleet.check_capacity(name, instances)
        changes.append(CapacityChange(name, instances, one.get("DesiredWeight", fleet.weights[name])))
    return changes


def retained(config: Mapping[str, Any], fleet: Fleet, excluded: Iterable[Mapping[str, str]]) -> dict[str, Any]:
    """Return a configuration with the counts and weights that variants of the same name have now.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateEndpoint.html
    """
    dropped = {_INITIAL.get(one["VariantPropertyType"]) for one in excluded}

    def changed(variant: Mapping[str, Any]) -> dict[str, Any]:
        name = variant["VariantName"]
        properties = fleet.properties(name) if fleet.has(name) else {}
        return {**variant, **{member: value for member, value in properties.items() if member not in dropped}}

    return {**config, "ProductionVariants": [changed(variant) for variant in config["ProductionVariants"]]}

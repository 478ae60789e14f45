"""How many servers a variant is to have and which share of the requests: as asked for, or kept over an update."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from deployments.local_aws.fleets import Fleet
from deployments.local_aws.records import invalid


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
        AwsError: There is no such variant, or it would have no server.
    """
    changes = []
    for one in asked:
        name = one["VariantName"]
        if not fleet.has(name):
            message = f'The requested variant(s) "{name}" do not exist in the endpoint.'
            raise invalid(message)
        instances = one.get("DesiredInstanceCount", fleet.count(name))
        if instances < 1:
            # To zero scale only endpoints with inference components, which are not here.
            message = f"DesiredInstanceCount of variant {name} must be at least 1"
            raise invalid(message)
        changes.append(CapacityChange(name, instances, one.get("DesiredWeight", fleet.weights[name])))
    return changes


def retained(config: Mapping[str, Any], fleet: Fleet, excluded: Iterable[Mapping[str, str]]) -> dict[str, Any]:
    """Return a configuration with the counts and weights that variants of the same name have now.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateEndpoint.html
    """
    properties = {"DesiredInstanceCount", "DesiredWeight"} - {one["VariantPropertyType"] for one in excluded}

    def changed(variant: Mapping[str, Any]) -> dict[str, Any]:
        name = variant["VariantName"]
        kept: dict[str, Any] = {}
        if fleet.has(name) and "DesiredInstanceCount" in properties:
            kept["InitialInstanceCount"] = fleet.count(name)
        if fleet.has(name) and "DesiredWeight" in properties:
            kept["InitialVariantWeight"] = fleet.weights[name]
        return {**variant, **kept}

    return {**config, "ProductionVariants": [changed(variant) for variant in config["ProductionVariants"]]}

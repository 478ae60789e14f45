"""SageMaker's models and endpoint configurations: what an endpoint is made of. They are only kept, nothing runs."""

from datetime import UTC, datetime
from typing import Any

from deployments.local_aws.account import Account
from deployments.local_aws.protocol import Operation
from deployments.local_aws.records import Record, Records, invalid, listing
from deployments.local_aws.serverless_requests import check_serverless
from deployments.local_aws.tags import Tags


class Models:
    """The models of an account.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateModel.html
    """

    def __init__(self, account: Account, tags: Tags) -> None:
        self._account, self._tags = account, tags
        self._records = Records()

    def operations(self) -> dict[str, Operation]:
        """Return its operations by their API names."""
        return {
            "CreateModel": self.create,
            "DescribeModel": lambda request: self.get(request["ModelName"]),
            "ListModels": self.list,
            "DeleteModel": self.delete,
        }

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        """Keep a model, if its role can be assumed."""
        container = request.get("PrimaryContainer", {})
        if not container.get("Image") or not container.get("ModelDataUrl"):
            message = "The local AWS serves models with PrimaryContainer.Image and PrimaryContainer.ModelDataUrl only"
            raise invalid(message)
        if not container["ModelDataUrl"].startswith("s3://"):
            message = f"PrimaryContainer.ModelDataUrl is {container['ModelDataUrl']!r}: it must begin with s3://"
            raise invalid(message)
        if "ExecutionRoleArn" not in request:
            message = "The local AWS downloads models as their role: give ExecutionRoleArn"
            raise invalid(message)
        self._account.role_environment(request["ExecutionRoleArn"])
        arn = _arn(self._account, "model", request["ModelName"])
        _keep(self._records, self._tags, request, "Model", arn)
        return {"ModelArn": arn}

    def get(self, name: str) -> Record:
        """Return a model's description."""
        return self._records.get(name, invalid(f'Could not find model "{_arn(self._account, "model", name)}".'))

    def list(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return a page of models."""
        return listing(self._records, request, key="Models", prefix="Model", members=_members("Model"))

    def delete(self, request: dict[str, Any]) -> dict[str, Any]:
        """Forget a model; endpoints that serve it go on."""
        arn = _arn(self._account, "model", request["ModelName"])
        self._records.remove(request["ModelName"], invalid(f'Could not find model "{arn}".'))
        self._tags.forget(arn)
        return {}


class EndpointConfigs:
    """The endpoint configurations of an account.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateEndpointConfig.html
    """

    def __init__(self, account: Account, models: Models, tags: Tags) -> None:
        self._account, self._models, self._tags = account, models, tags
        self._records = Records()

    def operations(self) -> dict[str, Operation]:
        """Return its operations by their API names."""
        return {
            "CreateEndpointConfig": self.create,
            "DescribeEndpointConfig": lambda request: self.get(request["EndpointConfigName"]),
            "ListEndpointConfigs": self.list,
            "DeleteEndpointConfig": self.delete,
        }

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        """Keep a configuration, if its models exist."""
        for variant in request["ProductionVariants"]:
            if "ModelName" not in variant or not {"InstanceType", "ServerlessConfig"} & variant.keys():
                message = "The local AWS serves variants with ModelName and InstanceType or ServerlessConfig only"
                raise invalid(message)
        check_serverless(request, [self._models.get(one["ModelName"]) for one in request["ProductionVariants"]])
        names = [variant["VariantName"] for variant in request["ProductionVariants"]]
        if len(set(names)) < len(names):
            message = f"Variant names must be unique, and these are not: {', '.join(names)}"
            raise invalid(message)
        arn = _arn(self._account, "endpoint-config", request["EndpointConfigName"])
        _keep(self._records, self._tags, request, "EndpointConfig", arn)
        return {"EndpointConfigArn": arn}

    def get(self, name: str) -> Record:
        """Return a configuration's description."""
        return self._records.get(name, self._missing(name))

    def list(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return a page of configurations."""
        prefix = "EndpointConfig"
        return listing(self._records, request, key="EndpointConfigs", prefix=prefix, members=_members(prefix))

    def delete(self, request: dict[str, Any]) -> dict[str, Any]:
        """Forget a configuration; endpoints that were made of it go on."""
        removed = self._records.remove(request["EndpointConfigName"], self._missing(request["EndpointConfigName"]))
        self._tags.forget(removed["EndpointConfigArn"])
        return {}

    def _missing(self, name: str) -> Any:
        arn = _arn(self._account, "endpoint-config", name)
        return invalid(f'Could not find endpoint configuration "{arn}".')


def _arn(account: Account, kind: str, name: str) -> str:
    return f"arn:aws:sagemaker:{account.region}:{account.account_id}:{kind}/{name}"


def _keep(records: Records, tags: Tags, request: dict[str, Any], prefix: str, arn: str) -> None:
    described = {member: value for member, value in request.items() if member != "Tags"}
    record = {"EnableNetworkIsolation": False, **described, f"{prefix}Arn": arn, "CreationTime": datetime.now(UTC)}
    words = {"Model": "model", "EndpointConfig": "endpoint configuration"}[prefix]
    with records.lock:
        records.add(request[f"{prefix}Name"], record, invalid(f'Cannot create already existing {words} "{arn}".'))
        tags.keep(arn, request)


def _members(prefix: str) -> tuple[str, ...]:
    return (f"{prefix}Name", f"{prefix}Arn", "CreationTime")

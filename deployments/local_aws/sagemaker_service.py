"""SageMaker: its executors as one service, and the tags of all that they keep."""

from typing import Any

from deployments.local_aws.account import Account
from deployments.local_aws.endpoints import Endpoints
from deployments.local_aws.models import EndpointConfigs, Models
from deployments.local_aws.protocol import Operation
from deployments.local_aws.records import invalid
from deployments.local_aws.training_jobs import TrainingJobs


class SageMaker:
    """SageMaker's control plane and runtime for one account."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._tags: dict[str, dict[str, str]] = {}
        self._jobs = TrainingJobs(account)
        self._models = Models(account)
        self._configs = EndpointConfigs(account, self._models)
        self._endpoints = Endpoints(account, self._models, self._configs)

    def operations(self) -> dict[str, Operation]:
        """Return the operations of the control plane by their API names."""
        own: dict[str, Operation] = {}
        for executor in (self._jobs, self._models, self._configs, self._endpoints):
            own |= executor.operations()
        tagged = {
            name: self._tagging(operation) if name.startswith("Create") else operation
            for name, operation in own.items()
        }
        return tagged | {"AddTags": self.add_tags, "ListTags": self.list_tags, "DeleteTags": self.delete_tags}

    def runtime_operations(self) -> dict[str, Operation]:
        """Return the operations of sagemaker-runtime by their API names."""
        return {"InvokeEndpoint": self._endpoints.invoke}

    def stop(self) -> None:
        """End every process."""
        self._jobs.stop()
        self._endpoints.stop()

    def add_tags(self, request: dict[str, Any]) -> dict[str, Any]:
        """Add tags to a resource, or change them."""
        tags = self._of(request["ResourceArn"])
        tags |= {tag["Key"]: tag["Value"] for tag in request["Tags"]}
        return {"Tags": _listed(tags)}

    def list_tags(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the tags of a resource, all of them at once: there are fifty at most."""
        return {"Tags": _listed(self._of(request["ResourceArn"]))}

    def delete_tags(self, request: dict[str, Any]) -> dict[str, Any]:
        """Remove tags from a resource."""
        tags = self._of(request["ResourceArn"])
        for key in request["TagKeys"]:
            tags.pop(key, None)
        return {}

    def _tagging(self, create: Operation) -> Operation:
        def create_with_tags(request: dict[str, Any]) -> dict[str, Any]:
            answer = create(request)
            arn = next(value for member, value in answer.items() if member.endswith("Arn"))
            self._tags[arn] = {tag["Key"]: tag["Value"] for tag in request.get("Tags", [])}
            return answer

        return create_with_tags

    def _of(self, arn: str) -> dict[str, str]:
        if arn not in self._tags:
            message = f"Could not find resource {arn}"
            raise invalid(message)
        return self._tags[arn]


def _listed(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]

"""SageMaker: its executors as one service."""

from typing import Any

from deployments.local_aws.account import Account
from deployments.local_aws.cloudwatch import CloudWatch
from deployments.local_aws.endpoint_metrics import EndpointMetrics
from deployments.local_aws.endpoints import Endpoints
from deployments.local_aws.invocations import Invocations
from deployments.local_aws.models import EndpointConfigs, Models
from deployments.local_aws.protocol import Operation
from deployments.local_aws.supported import HONOURED, refuse_unsupported
from deployments.local_aws.training_jobs import TrainingJobs
from deployments.local_aws.tuning_jobs import TuningJobs


class SageMaker:
    """SageMaker's control plane and runtime for one account."""

    def __init__(self, account: Account, cloudwatch: CloudWatch) -> None:
        self._tags = account.sagemaker_tags
        self._jobs = TrainingJobs(account, self._tags)
        self._tuning_jobs = TuningJobs(account, self._jobs, self._tags)
        self._models = Models(account, self._tags)
        self._configs = EndpointConfigs(account, self._models, self._tags)
        self.endpoints = Endpoints(account, self._models, self._configs, self._tags, cloudwatch.alarms)
        metrics = EndpointMetrics(cloudwatch.publish)
        cloudwatch.publishers.append(metrics.publish_until)
        self._invocations = Invocations(account, self.endpoints.reserve, metrics)

    def operations(self) -> dict[str, Operation]:
        """Return the operations of the control plane by their API names."""
        operations: dict[str, Operation] = {}
        executors = (self._jobs, self._tuning_jobs, self._models, self._configs, self.endpoints, self._tags)
        for executor in executors:
            operations |= executor.operations()
        return _checked(operations, "ValidationException")

    def runtime_operations(self) -> dict[str, Operation]:
        """Return the operations of sagemaker-runtime by their API names."""
        return _checked({"InvokeEndpoint": self._invocations.invoke}, "ValidationError")

    def stop(self) -> None:
        """End every process."""
        self._tuning_jobs.close()
        self._jobs.stop()
        self._tuning_jobs.join()
        self.endpoints.stop()


def _checked(operations: dict[str, Operation], code: str) -> dict[str, Operation]:
    """Return the operations so that each refuses what it would not do; those without a table take all that AWS does."""

    def checked(name: str, operation: Operation) -> Operation:
        def refuse_or_run(request: dict[str, Any]) -> dict[str, Any]:
            refuse_unsupported(name, request, code)
            return operation(request)

        return refuse_or_run

    return {name: checked(name, operation) if name in HONOURED else operation for name, operation in operations.items()}

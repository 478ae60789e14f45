"""What would cost money this moment, were this AWS not on this machine."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from deployments.local_aws.console.endpoints import variants
from deployments.local_aws.console.functions import all_functions, provisioned
from deployments.local_aws.console.instances import all_instances
from deployments.local_aws.console.pages import Clients

_MOST = 100
_TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class Billed:
    """Something that bills; ``link`` is the name of the view that shows it."""

    kind: str
    name: str
    link: str
    what: str
    since: datetime | None


def billing(client: Clients) -> Sequence[Billed]:
    """Return everything that bills now."""
    return [*_jobs(client), *_endpoints(client), *_instances(client), *_functions(client)]


def _jobs(client: Clients) -> Iterator[Billed]:
    sagemaker = client("sagemaker")
    for status in ("InProgress", "Stopping"):
        for one in sagemaker.list_training_jobs(StatusEquals=status, MaxResults=_MOST)["TrainingJobSummaries"]:
            job = sagemaker.describe_training_job(TrainingJobName=one["TrainingJobName"])
            since = job.get("TrainingStartTime", job["CreationTime"])
            yield Billed("Training job", job["TrainingJobName"], "training_job", machines(job["ResourceConfig"]), since)


def _endpoints(client: Clients) -> Iterator[Billed]:
    for one in client("sagemaker").list_endpoints(MaxResults=_MOST)["Endpoints"]:
        with suppress(ClientError):  # it was deleted since it was listed
            described = client("sagemaker").describe_endpoint(EndpointName=one["EndpointName"])
            billed = [variant for variant in variants(client, described) if variant.bills]
            what = ", ".join(f"{variant.instances} {_TIMES} {variant.instance_type}" for variant in billed)
            if billed:
                yield Billed("Endpoint", one["EndpointName"], "endpoint", what, described["CreationTime"])


def _instances(client: Clients) -> Iterator[Billed]:
    for one in all_instances(client):
        if one["State"]["Name"] in ("pending", "running"):
            yield Billed("Instance", one["InstanceId"], "instance", one["InstanceType"], one["LaunchTime"])


def _functions(client: Clients) -> Iterator[Billed]:
    for one in all_functions(client):
        for kept in provisioned(client, one["FunctionName"]):
            what = f"{kept['RequestedProvisionedConcurrentExecutions']} kept warm"
            yield Billed("Function", one["FunctionName"], "function", what, None)


def machines(resources: Mapping[str, Any]) -> str:
    """Return how many instances of which type a job asks for."""
    groups = resources.get("InstanceGroups") or [resources]
    return ", ".join(f"{group['InstanceCount']} {_TIMES} {group['InstanceType']}" for group in groups)

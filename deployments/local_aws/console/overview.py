"""The console's first page: what bills now, and how many there are of everything, with the latest of each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from deployments.local_aws.console.billing import billing
from deployments.local_aws.console.functions import all_functions
from deployments.local_aws.console.instances import all_instances
from deployments.local_aws.console.objects import all_buckets
from deployments.local_aws.console.pages import Clients, Page, Query

_LATEST = 4
_MOST = 100  # a page of SageMaker's; beyond it nobody counts


@dataclass(frozen=True)
class Item:
    """One of the latest; ``link`` is the name of the view that shows it."""

    name: str
    link: str
    status: str = ""
    when: datetime | None = None


@dataclass(frozen=True)
class Kind:
    """How many there are of a kind, and the latest."""

    title: str
    link: str
    count: str
    latest: Sequence[Item]


def overview(client: Clients, _query: Query) -> Page:
    """Return the first page."""
    kinds = [read(client) for read in _KINDS]
    return Page("overview.html", {"kinds": kinds, "billing": billing(client)})


def _training_jobs(client: Clients) -> Kind:
    found = client("sagemaker").list_training_jobs(MaxResults=_MOST)["TrainingJobSummaries"]
    items = [
        Item(one["TrainingJobName"], "training_job", one["TrainingJobStatus"], one["CreationTime"]) for one in found
    ]
    return _kind("Training jobs", "training_jobs", items)


def _tuning_jobs(client: Clients) -> Kind:
    found = client("sagemaker").list_hyper_parameter_tuning_jobs(
        MaxResults=_MOST, SortBy="CreationTime", SortOrder="Descending"
    )["HyperParameterTuningJobSummaries"]
    name, status = "HyperParameterTuningJobName", "HyperParameterTuningJobStatus"
    items = [Item(one[name], "tuning_job", one[status], one["CreationTime"]) for one in found]
    return _kind("Tuning jobs", "tuning_jobs", items)


def _endpoints(client: Clients) -> Kind:
    found = client("sagemaker").list_endpoints(MaxResults=_MOST)["Endpoints"]
    items = [Item(one["EndpointName"], "endpoint", one["EndpointStatus"], one["CreationTime"]) for one in found]
    return _kind("Endpoints", "endpoints", items)


def _instances(client: Clients) -> Kind:
    found = all_instances(client)
    items = [Item(one["InstanceId"], "instance", one["State"]["Name"], one["LaunchTime"]) for one in found]
    return _kind("Instances", "instances", items)


def _functions(client: Clients) -> Kind:
    items = [Item(one["FunctionName"], "function") for one in all_functions(client)]
    return _kind("Functions", "functions", items)


def _buckets(client: Clients) -> Kind:
    items = [Item(one["Name"], "bucket", when=one["CreationDate"]) for one in all_buckets(client)]
    return _kind("Buckets", "buckets", items)


def _kind(title: str, link: str, items: Sequence[Item]) -> Kind:
    count = str(len(items)) if len(items) < _MOST else f"{_MOST}+"
    return Kind(title, link, count, items[:_LATEST])


_KINDS: Sequence[Callable[[Clients], Kind]] = (
    _training_jobs,
    _tuning_jobs,
    _endpoints,
    _instances,
    _functions,
    _buckets,
)

"""What of this project may bill just now: looked for at AWS itself, by its tags, and ended."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from tasks.aws.clients import client
from tasks.aws.endpoints import delete_whole
from tasks.aws.identity import ADOPTED_TAG, EXPIRES_TAG, FLOW_RUN_TAG, NEVER, PROJECT, PROJECT_TAG, is_project
from tasks.aws.instances import LIVE, instances_with, tags_on, terminate
from tasks.aws.jobs import ENDPOINT_CONFIGS, ENDPOINTS, TRAINING_JOBS, TUNING_JOBS, describe, stop, tags_at
from tasks.aws.prices import hourly_usd, lambda_prices
from tasks.aws.scaling import forget_target
from tasks.contracts import Billing, BillingKind

_PREFIX = "flows-"
_MB_PER_GB = 1024
_SECONDS_PER_HOUR = 3600


def find_billing(region: str) -> tuple[Billing, ...]:
    """Return everything that carries this project's tag and bills, or makes something bill, with what its tags say."""
    found = (_training_jobs, _tuning_jobs, _endpoints, _instances, _warm_functions, _targets)
    return tuple(one for kind in found for one in kind(region))


def end(billing: Billing) -> None:
    """Stop or delete it; safe to repeat."""
    name = billing.name
    if billing.kind == "training job":
        stop(TRAINING_JOBS, name)
    elif billing.kind == "tuning job":
        stop(TUNING_JOBS, name)
    elif billing.kind == "endpoint":
        delete_whole(name)
    elif billing.kind == "instance":
        terminate(name)
    elif billing.kind == "scalable target":
        forget_target(name)
    else:
        function, _, qualifier = name.partition(":")
        client("lambda").delete_provisioned_concurrency_config(FunctionName=function, Qualifier=qualifier)


# --- jobs -----------------------------------------------------------------------------------------------------------


def _training_jobs(region: str) -> Iterator[Billing]:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListTrainingJobs.html."""
    for listed in _listed("list_training_jobs", "TrainingJobSummaries", StatusEquals="InProgress"):
        tags = tags_at(listed["TrainingJobArn"])
        job = describe(TRAINING_JOBS, listed["TrainingJobName"]) if is_project(tags) else None
        if job is not None and "TuningJobArn" not in job:  # a trial ends with its tuning job
            machines = job["ResourceConfig"]
            price = hourly_usd("training", machines["InstanceType"], region, machines["InstanceCount"])
            longest = timedelta(seconds=job["StoppingCondition"]["MaxRuntimeInSeconds"])
            began = job.get("TrainingStartTime") or job["CreationTime"]
            yield _billing("training job", job["TrainingJobName"], tags, price, ends_at=began + longest)


def _tuning_jobs(region: str) -> Iterator[Billing]:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListHyperParameterTuningJobs.html."""
    found = _listed("list_hyper_parameter_tuning_jobs", "HyperParameterTuningJobSummaries", StatusEquals="InProgress")
    for listed in found:
        tags = tags_at(listed["HyperParameterTuningJobArn"])
        job = describe(TUNING_JOBS, listed["HyperParameterTuningJobName"]) if is_project(tags) else None
        if job is not None:
            machines = job["TrainingJobDefinition"]["ResourceConfig"]
            limits = job["HyperParameterTuningJobConfig"]["ResourceLimits"]
            at_once = limits["MaxParallelTrainingJobs"]
            price = hourly_usd("training", machines["InstanceType"], region, machines["InstanceCount"] * at_once)
            trial = job["TrainingJobDefinition"]["StoppingCondition"]["MaxRuntimeInSeconds"]
            longest = timedelta(seconds=trial * limits["MaxNumberOfTrainingJobs"] / at_once)
            name = job["HyperParameterTuningJobName"]
            yield _billing("tuning job", name, tags, price, ends_at=job["CreationTime"] + longest)


# --- what serves ----------------------------------------------------------------------------------------------------


def _endpoints(region: str) -> Iterator[Billing]:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListEndpoints.html."""
    for listed in _listed("list_endpoints", "Endpoints"):
        tags = tags_at(listed["EndpointArn"]) if listed["EndpointStatus"] != "Deleting" else {}
        if is_project(tags):
            name = listed["EndpointName"]
            yield _billing("endpoint", name, tags, _endpoint_hourly_usd(name, region))


def _endpoint_hourly_usd(name: str, region: str) -> float | None:
    """Return what its machines cost; nothing for one without any."""
    endpoint = describe(ENDPOINTS, name) or {}
    config = describe(ENDPOINT_CONFIGS, endpoint.get("EndpointConfigName", name)) or {}
    counts = {one["VariantName"]: one.get("CurrentInstanceCount") for one in endpoint.get("ProductionVariants", [])}
    prices = [
        hourly_usd("hosting", one["InstanceType"], region, counts.get(one["VariantName"]) or 1)
        for one in config.get("ProductionVariants", [])
        if "InstanceType" in one
    ]
    known = [price for price in prices if price is not None]
    return sum(known) if len(known) == len(prices) else None


def _targets(_region: str) -> Iterator[Billing]:
    """Return the scalable targets whose endpoint is gone; that of one in service ends with it."""
    pages = client("application-autoscaling").get_paginator("describe_scalable_targets")
    for page in pages.paginate(ServiceNamespace="sagemaker"):
        for target in page["ScalableTargets"]:
            name = target["ResourceId"].split("/")[1]
            if name.startswith(_PREFIX) and describe(ENDPOINTS, name) is None:
                arn = target["ScalableTargetARN"]
                tags = client("application-autoscaling").list_tags_for_resource(ResourceARN=arn)["Tags"]
                if is_project(tags):
                    yield _billing("scalable target", name, tags, 0.0, reason="its endpoint is gone")


def _warm_functions(region: str) -> Iterator[Billing]:
    """https://docs.aws.amazon.com/lambda/latest/api/API_ListProvisionedConcurrencyConfigs.html."""
    aws, prices = client("lambda"), lambda_prices(region)
    for function in (one for page in aws.get_paginator("list_functions").paginate() for one in page["Functions"]):
        name = function["FunctionName"]
        tags = aws.list_tags(Resource=function["FunctionArn"])["Tags"] if name.startswith(_PREFIX) else {}
        if not is_project(tags):
            continue
        pages = aws.get_paginator("list_provisioned_concurrency_configs").paginate(FunctionName=name)
        for kept in (one for page in pages for one in page["ProvisionedConcurrencyConfigs"]):
            warm_gb = kept["RequestedProvisionedConcurrentExecutions"] * function["MemorySize"] / _MB_PER_GB
            price = None if prices is None else prices.warm_gb_second * warm_gb * _SECONDS_PER_HOUR
            qualifier = kept["FunctionArn"].rpartition(":")[2]
            yield _billing("provisioned concurrency", f"{name}:{qualifier}", tags, price)


# --- instances ------------------------------------------------------------------------------------------------------


def _instances(region: str) -> Iterator[Billing]:
    for instance in instances_with({f"tag:{PROJECT_TAG}": [PROJECT], "instance-state-name": LIVE}):
        tags, price = tags_on(instance), hourly_usd("ec2", instance["InstanceType"], region)
        ends_at = expiry_of(tags.get(EXPIRES_TAG, NEVER))  # by itself, since its shutdown is planned
        yield _billing("instance", instance["InstanceId"], tags, price, ends_at=ends_at)


def expiry_of(text: str) -> datetime | None:
    """Return the moment that a tag names; None for never, and for what is no time."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


# --- all ------------------------------------------------------------------------------------------------------------


def _listed(operation: str, member: str, **only: str) -> Iterator[dict[str, Any]]:
    for page in client("sagemaker").get_paginator(operation).paginate(NameContains=_PREFIX, **only):
        yield from page[member]


def _billing(kind: BillingKind, name: str, tags: Mapping[str, str], hourly: float | None, **more: Any) -> Billing:
    runs = tuple(run for tag in (FLOW_RUN_TAG, ADOPTED_TAG) for run in tags.get(tag, "").split())
    expires_at = expiry_of(tags.get(EXPIRES_TAG, NEVER))
    return Billing(kind=kind, name=name, flow_run_ids=runs, expires_at=expires_at, hourly_usd=hourly, **more)

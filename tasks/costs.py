"""What steps cost, as lines of a table: estimated before, billed after."""

from datetime import datetime

from tasks.aws.prices import cost_usd
from tasks.contracts import Compute, CostLine, EndpointResult, TrainingResult


def training_cost(job: TrainingResult, compute: Compute, region: str) -> CostLine:
    """Return the cost line of a training job; one that was reused has cost nothing this time."""
    at_most = cost_usd("training", job.instance_type, region, job.instance_count, compute.max_runtime_seconds)
    reused = job.how == "reused"
    saved = "" if job.cost_usd is None else f", ${job.cost_usd:.4f} saved"
    return CostLine(
        step="training",
        machines=f"{job.instance_count} x {job.instance_type}",
        billable_seconds=0 if reused else job.billable_seconds,
        at_most_usd=at_most,
        billed_usd=0 if reused else job.cost_usd,
        note=f"completed before{saved}" if reused else job.how,
    )


def endpoint_cost(endpoint: EndpointResult, region: str, until: datetime, *, kept: bool) -> CostLine:
    """Return the cost line of an endpoint, from its creation to a moment."""
    seconds = (until - endpoint.created_at).total_seconds()
    billed = cost_usd("hosting", endpoint.instance_type, region, endpoint.instance_count, seconds)
    hourly = "unknown" if endpoint.hourly_usd is None else f"${endpoint.hourly_usd:.3f}"
    return CostLine(
        step="endpoint",
        machines=f"{endpoint.instance_count} x {endpoint.instance_type}",
        billable_seconds=seconds,
        at_most_usd=endpoint.hourly_usd,
        billed_usd=billed,
        note=f"still billing {hourly} an hour" if kept else "deleted; at most: one hour",
    )

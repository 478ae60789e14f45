"""What steps cost, as lines of a table: estimated before, billed after."""

from collections.abc import Sequence
from datetime import datetime

from tasks.aws.errors import RequestRefusedError
from tasks.aws.prices import Use, cost_usd
from tasks.contracts import Compute, CostLine, Ec2Compute, EndpointResult, TrainedModel, TuningConfig, TuningResult


def within_budget(config: TuningConfig, compute: Compute, region: str) -> TuningConfig:
    """Return the tuning with no more trials than its dollars pay for, each at its longest: so it cannot cost more.

    Raises:
        RequestRefusedError: The budget does not pay for one trial, or the price is not known.
    """
    if config.max_usd is None:
        return config
    each = cost_usd("training", compute.instance_type, region, compute.instance_count, compute.max_runtime_seconds)
    if each is None:
        msg = f"max_usd cannot be kept: {compute.instance_type} has no known price in {region}; give trials instead"
        raise RequestRefusedError(msg)
    affordable = int(config.max_usd / each)
    if affordable < 1:
        msg = (
            f"max_usd=${config.max_usd:.2f} does not pay for one trial, which may take {compute.max_runtime_seconds} s "
            f"and ${each:.2f}: raise it, or lower compute.max_runtime_seconds"
        )
        raise RequestRefusedError(msg)
    return TuningConfig.model_validate(config.model_dump() | {"trials": min(config.trials, affordable)})


def tuning_at_most(config: TuningConfig, compute: Compute, region: str) -> float | None:
    """Return what a tuning costs if every trial takes as long as it may; None when the price is unknown."""
    longest = config.trials * compute.max_runtime_seconds
    return cost_usd("training", compute.instance_type, region, compute.instance_count, longest)


def trainings_at_most(jobs: Sequence[Compute], ec2: Ec2Compute, region: str) -> float | None:
    """Return what training jobs and an instance cost if each takes as long as it may; None: a price is unknown."""
    costs = [
        cost_usd("training", one.instance_type, region, one.instance_count, one.max_runtime_seconds) for one in jobs
    ]
    costs.append(cost_usd("ec2", ec2.instance_type, region, 1, ec2.max_runtime_seconds))
    return None if None in costs else sum(cost for cost in costs if cost is not None)


def tuning_cost(tuning: TuningResult, config: TuningConfig, compute: Compute, region: str) -> CostLine:
    """Return the cost line of a tuning job: all its trials."""
    return _line(
        "tuning",
        f"{len(tuning.trials)} trials on {compute.instance_type}",
        tuning.how,
        billable_seconds=tuning.billable_seconds,
        at_most_usd=tuning_at_most(config, compute, region),
        billed_usd=tuning.cost_usd,
    )


def training_cost(model: TrainedModel, max_runtime_seconds: float, region: str) -> CostLine:
    """Return the cost line of a training; one that was reused has cost nothing this time."""
    job = model.job
    use: Use = "ec2" if model.way == "EC2" else "training"
    return _line(
        f"training, {model.way}",
        f"{job.instance_count} × {job.instance_type}",
        job.how,
        billable_seconds=job.billable_seconds,
        at_most_usd=cost_usd(use, job.instance_type, region, job.instance_count, max_runtime_seconds),
        billed_usd=job.cost_usd,
    )


def _line(
    step: str, machines: str, how: str, *, billable_seconds: float, at_most_usd: float | None, billed_usd: float | None
) -> CostLine:
    reused = how == "reused"
    saved = "" if billed_usd is None else f", ${billed_usd:.4f} saved"
    return CostLine(
        step=step,
        machines=machines,
        billable_seconds=0 if reused else billable_seconds,
        at_most_usd=at_most_usd,
        billed_usd=0 if reused else billed_usd,
        note=f"completed before{saved}" if reused else how,
    )


def endpoint_cost(endpoint: EndpointResult, region: str, until: datetime, *, kept: bool) -> CostLine:
    """Return the cost line of an endpoint, from its creation to a moment."""
    seconds = (until - endpoint.created_at).total_seconds()
    machines = endpoint.compute
    known = cost_usd("hosting", machines.instance_type, region, machines.instance_count, seconds)
    billed = None if machines.serverless else known  # by what was asked of it, which nobody counted
    hourly = "unknown" if endpoint.hourly_usd is None else f"${endpoint.hourly_usd:.3f}"
    return CostLine(
        step="endpoint",
        machines=machines.machines,
        billable_seconds=seconds,
        at_most_usd=endpoint.hourly_usd,
        billed_usd=billed,
        note=f"still billing {hourly} an hour" if kept else "deleted; at most: one hour",
    )

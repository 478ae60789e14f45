"""Put a model into service: an endpoint of a lasting name, a function in front, and scaling that follows measurements.

python -m flows.go_live s3://…/model.tar.gz s3://…/dataset.json
python -m flows.go_live MODEL MANIFEST --traffic.requests-per-second 5 --traffic.peak-requests-per-second 40
"""

from contextlib import ExitStack
from typing import Annotated

from prefect import flow

from flows import command_line
from flows.deploy_endpoint import deploy_endpoint
from flows.deploy_front import deploy_front
from flows.recommend_scaling import recommend_scaling
from flows.scale_endpoint import scale_endpoint
from flows.teardown import teardown
from tasks.aws.settings import load_settings
from tasks.cancellation import stop_what_it_started
from tasks.contracts import (
    FORGOTTEN_AFTER_HOURS,
    EndpointCompute,
    FrontConfig,
    LiveResult,
    Rollout,
    S3Uri,
    StepResult,
    Traffic,
    titled,
)
from tasks.results import kept_as_json


@kept_as_json
@flow(
    name="go-live",
    flow_run_name="go live on {compute.machines}",
    on_cancellation=[stop_what_it_started],
)
def go_live(
    model: Annotated[S3Uri, titled("Model package")],
    manifest: Annotated[S3Uri, titled("Dataset manifest")],
    *,
    compute: Annotated[EndpointCompute, titled("Machines")] = EndpointCompute(),
    rollout: Annotated[Rollout, titled("Rollout")] = Rollout(),
    front: Annotated[FrontConfig, titled("Function in front")] = FrontConfig(),
    traffic: Annotated[Traffic | None, titled("Expected traffic")] = None,
    keep: Annotated[bool, titled("Keep in service")] = True,
) -> StepResult[LiveResult]:
    """Deploy a model where its users ask it; what is live already is updated without losing a request.

    Args:
        model: The model package, s3://…/model.tar.gz.
        manifest: The dataset whose test pictures all parts are tried with: s3://…/dataset.json.
        compute: What the endpoint runs on.
        rollout: How requests move to this model when another one is live.
        front: The function in front.
        traffic: What is expected; from it, and from what the endpoint holds, follows its scaling. None: no scaling.
        keep: Leave all in service, and billing; otherwise what was not live before is taken down again.
    """
    name, hours = load_settings().front_endpoint, None if keep else FORGOTTEN_AFTER_HOURS
    gone: list[str] = []
    with ExitStack() as afterwards:  # also when a later step fails: nothing is left billing
        step = deploy_endpoint(
            model, manifest=manifest, compute=compute, name=name, rollout=rollout, expires_after_hours=hours
        )
        if step.result.endpoint.ours and not keep:
            afterwards.callback(lambda: gone.extend(teardown(name, front=front.name).deleted))
        fronted = deploy_front(front=front, manifest=manifest, expires_after_hours=hours)
        sections = (*step.sections, *fronted.sections)
        recommended = scaled = None
        if traffic and not compute.serverless:
            recommended = recommend_scaling(name, manifest, traffic=traffic, front=front.name)
            scaled = scale_endpoint(name, scaling=recommended.result.scaling)
            sections = (*sections, *recommended.sections, *scaled.sections)
    live = LiveResult(
        deployment=step.result,
        front=fronted.result,
        recommendation=recommended and recommended.result,
        scaling=scaled and scaled.result,
        deleted=tuple(gone),
    )
    return StepResult(result=live, sections=sections)


def show(step: StepResult[LiveResult]) -> str:
    """Say where the model is asked, and how it scales."""
    return "\n".join(lines_of(step.result))


def lines_of(live: LiveResult) -> list[str]:
    """Return what is live, a line for each part."""
    endpoint, front = live.deployment.endpoint, live.front
    right = sum(one.answer.label == one.image.label for one in front.answers)
    lines = [
        f"Live       {endpoint.name} ({endpoint.how})",
        f"Front      {front.name} version {front.version} ({front.how})",
        f"           {front.url}: {right} of {len(front.answers)} test pictures right",
    ]
    if live.scaling is None or live.recommendation is None:
        return [*lines, "Scaling    none: no traffic was named (--traffic.requests-per-second …)"]
    held, scaling = live.recommendation.held_requests_per_second, live.scaling.scaling
    limits = f"{scaling.min_instances} to {scaling.max_instances} instances"
    return [
        *lines,
        f"Scaling    an instance held {held:.0f} requests a second",
        f"           {limits} at {scaling.target:g} invocations a minute each",
    ]


if __name__ == "__main__":
    command_line.run(go_live, show)

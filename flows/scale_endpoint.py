"""Scale an endpoint: as many instances as keep each at its target of invocations a minute, within limits.

python -m flows.scale_endpoint flows-live --scaling.target 600 --scaling.max-instances 4
python -m flows.recommend_scaling flows-live MANIFEST …      measures which target is right
"""

from typing import Annotated

from prefect import flow

from flows import command_line
from tasks.aws.settings import load_settings
from tasks.cancellation import stop_what_it_started
from tasks.contracts import EndpointName, Scaling, ScalingResult, StepResult, titled
from tasks.reports import report_scaling
from tasks.results import kept_as_json
from tasks.scaling import put_under_scaling


@kept_as_json
@flow(
    name="scale-endpoint",
    flow_run_name="scale {endpoint} to {scaling.max_instances} at most",
    on_cancellation=[stop_what_it_started],
)
def scale_endpoint(
    endpoint: Annotated[EndpointName, titled("Endpoint")], *, scaling: Annotated[Scaling, titled("Scaling")]
) -> StepResult[ScalingResult]:
    """Put an endpoint under Application Auto Scaling, or change how it is scaled; teardown takes it off.

    Args:
        endpoint: The endpoint, in service; its name begins with flows-.
        scaling: Target, limits, cooldowns and schedule; what is not in the schedule any more is not done any more.
    """
    settings = load_settings()
    result = put_under_scaling(endpoint, scaling, settings)
    return StepResult(result=result, sections=(report_scaling(result, settings.region),))


def show(step: StepResult[ScalingResult]) -> str:
    """Say how the endpoint is scaled from now on."""
    result, scaling = step.result, step.result.scaling
    most = "unknown" if result.most_hourly_usd is None else f"${result.most_hourly_usd:.3f}"
    limits = f"{scaling.min_instances} to {scaling.max_instances} instances, {result.instances} now"
    lines = [
        f"{result.endpoint}: {limits}, at most {most} an hour",
        f"  {scaling.target:g} invocations per instance and minute",
        *(f"  {one.name}: {one.schedule} {one.timezone}" for one in scaling.schedule),
        *(f"  {one.at:%Y-%m-%d %H:%M:%S} {one.description} ({one.status})" for one in result.activities),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    command_line.run(scale_endpoint, show)

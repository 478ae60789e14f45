"""Ask an endpoint about labelled pictures, and fail when it is worse or slower than when it was deployed.

python -m flows.check_endpoint_health flows-live
python -m flows.check_endpoint_health flows-live --limits.most-accuracy-lost 0.02 --limits.most-times-slower 3
"""

from typing import Annotated

from prefect import flow

from flows import command_line
from tasks.aws.errors import DriftError
from tasks.aws.settings import load_settings
from tasks.cancellation import stop_what_it_started
from tasks.contracts import EndpointName, HealthCheck, HealthLimits, StepResult, titled
from tasks.datasets import fetch_images, load_dataset
from tasks.endpoints import ask_endpoint
from tasks.events import tell_drifted
from tasks.health import check_drift, health_of, load_baseline
from tasks.reports import report_health
from tasks.results import kept_as_json


@kept_as_json
@flow(
    name="check-endpoint-health",
    flow_run_name="check {endpoint}",
    on_cancellation=[stop_what_it_started],
)
def check_endpoint_health(
    endpoint: Annotated[EndpointName, titled("Endpoint")],
    *,
    limits: Annotated[HealthLimits, titled("Limits")] = HealthLimits(),
) -> StepResult[HealthCheck]:
    """Compare what an endpoint says now with what it said when it was deployed, of the same pictures.

    Args:
        endpoint: The endpoint, deployed with a manifest; its name begins with flows-.
        limits: How much worse, and how much slower, it may be.
    """
    settings = load_settings()
    baseline = load_baseline(endpoint)
    pictures = fetch_images(load_dataset(baseline.manifest_s3_uri), "test", baseline.health.pictures)
    answers = ask_endpoint(endpoint, pictures)
    check = HealthCheck(endpoint=endpoint, now=health_of(answers), then=baseline.health)
    section = report_health(check, answers, settings.region)  # also of one that has drifted: what it says now shows why
    try:
        check_drift(endpoint, check.now, check.then, limits)
    except DriftError as error:
        tell_drifted(check, error.drift)
        raise
    return StepResult(result=check, sections=(section,))


def show(step: StepResult[HealthCheck]) -> str:
    """Say what the endpoint is like now, and was then."""
    now, then = step.result.now, step.result.then
    return "\n".join(
        [
            f"{step.result.endpoint} is as it was:",
            f"  {now.accuracy:.1%} of {now.pictures} pictures right, {then.accuracy:.1%} at its deployment",
            f"  {now.p50_ms:.0f} ms in the median, {then.p50_ms:.0f} ms at its deployment",
        ]
    )


if __name__ == "__main__":
    command_line.run(check_endpoint_health, show)

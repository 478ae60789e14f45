"""Measure what an endpoint holds, and derive scaling, concurrency and cost from the expected traffic.

python -m flows.recommend_scaling ENDPOINT MANIFEST --traffic.requests-per-second 5 --traffic.peak-requests-per-second 9
python -m flows.recommend_scaling ENDPOINT MANIFEST … --traffic.p99-ms 300 --front flows-classify-image
"""

from typing import Annotated

from prefect import flow

from flows import command_line
from tasks.aws.settings import load_settings
from tasks.cancellation import stop_what_it_started
from tasks.contracts import EndpointName, FrontName, S3Uri, ScalingRecommendation, StepResult, Traffic, titled
from tasks.datasets import fetch_images, load_dataset
from tasks.loads import find_function_memory, measure_endpoint, measure_function
from tasks.recommendations import held_level, recommend
from tasks.reports import report_recommendation
from tasks.results import kept_as_json

_PICTURES_ASKED = 32


@kept_as_json
@flow(
    name="recommend-scaling",
    flow_run_name="recommend scaling of {endpoint}",
    on_cancellation=[stop_what_it_started],
)
def recommend_scaling(
    endpoint: Annotated[EndpointName, titled("Endpoint")],
    manifest: Annotated[S3Uri, titled("Dataset manifest")],
    *,
    traffic: Annotated[Traffic, titled("Expected traffic")],
    front: Annotated[FrontName | None, titled("Function in front")] = None,
) -> StepResult[ScalingRecommendation]:
    """Measure an endpoint in service and say how to scale it; the measurement is load on top of what it has.

    Args:
        endpoint: The endpoint, flows-…; it must not be scaled meanwhile.
        manifest: The dataset whose test pictures it is asked about: s3://…/dataset.json.
        traffic: What is expected of it, and how it is measured.
        front: The function in front of it, flows-…, to measure how long an answer takes through it; none: not measured.
    """
    settings = load_settings()
    pictures = fetch_images(load_dataset(manifest), "test", _PICTURES_ASKED)
    memory_mb = find_function_memory(front, endpoint) if front else 0
    measured, function = measure_endpoint(endpoint, pictures, traffic), None
    if front:
        callers = held_level(measured.levels, traffic.p99_ms).callers
        function = measure_function(front, memory_mb, pictures, callers, traffic.seconds_per_level)
    recommendation = recommend(measured, traffic, settings.region, function)
    section = report_recommendation(recommendation, traffic.p99_ms, settings.region)
    return StepResult(result=recommendation, sections=(section,))


def show(step: StepResult[ScalingRecommendation]) -> str:
    """Return the reasoning, and the command that does what is recommended."""
    recommendation, scaling = step.result, step.result.scaling
    command = (
        f"python -m flows.scale_endpoint {recommendation.endpoint} --scaling.target {scaling.target:g} "
        f"--scaling.min-instances {scaling.min_instances} --scaling.max-instances {scaling.max_instances}"
    )
    return "\n".join([*recommendation.reasoning, command])


if __name__ == "__main__":
    command_line.run(recommend_scaling, show)

"""Measure what an endpoint holds, and derive scaling, concurrency and cost from the expected traffic.

python -m flows.recommend_scaling ENDPOINT MANIFEST --traffic.requests-per-second 5 --traffic.peak-requests-per-second 9
python -m flows.recommend_scaling ENDPOINT MANIFEST … --traffic.p99-ms 300 --front flows-classify-image
"""

from prefect import flow

from flows import command_line
from tasks.aws.settings import load_settings
from tasks.contracts import EndpointName, S3Uri, ScalingRecommendation, StepResult, Traffic
from tasks.datasets import fetch_images, load_dataset
from tasks.loads import find_function_memory, measure_endpoint, measure_function
from tasks.recommendations import held_level, recommend
from tasks.reports import report_recommendation

_PICTURES_ASKED = 32


@flow(name="recommend-scaling", flow_run_name="recommend scaling of {endpoint}")
def recommend_scaling(
    endpoint: EndpointName,
    manifest: S3Uri,
    *,
    traffic: Traffic,
    front: str | None = None,
) -> StepResult[ScalingRecommendation]:
    """Measure an endpoint in service and say how to scale it; the measurement is load on top of what it has.

    Args:
        endpoint: The endpoint; it must not be scaled meanwhile.
        manifest: The dataset whose test pictures it is asked about: s3://…/dataset.json.
        traffic: What is expected of it, and how it is measured.
        front: The function in front of it, to measure how long an answer takes through it.
    """
    settings = load_settings()
    pictures = fetch_images(load_dataset(manifest), "test", _PICTURES_ASKED)
    memory_mb = find_function_memory(front, endpoint) if front else 0
    measured, function = measure_endpoint(endpoint, pictures, traffic), None
    if front:
        callers = held_level(measured.levels, traffic.p99_ms).callers
        function = measure_function(front, memory_mb, pictures, callers, traffic.seconds_per_level)
    recommendation = recommend(measured, traffic, settings.region, function)
    return StepResult(result=recommendation, sections=(report_recommendation(recommendation, traffic.p99_ms),))


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

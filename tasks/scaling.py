"""Endpoints that grow and shrink with what is asked of them: put under Application Auto Scaling, kept there."""

from collections.abc import Iterator
from contextlib import contextmanager

from tasks.aws import scaling as targets
from tasks.aws.endpoints import is_ours, is_serverless
from tasks.aws.errors import FlowsError
from tasks.aws.identity import digest_of, tags_of
from tasks.aws.jobs import ENDPOINT_CONFIGS, ENDPOINTS, Description, describe
from tasks.aws.prices import hourly_usd
from tasks.aws.settings import Settings
from tasks.contracts import EndpointSpec, Scaling, ScalingResult
from tasks.retries import retried
from tasks.runs import current_owner, run_logger


@retried("scale {endpoint}")
def put_under_scaling(endpoint: str, scaling: Scaling, settings: Settings) -> ScalingResult:
    """Scale an endpoint as told, and return what it has now; safe to retry.

    Raises:
        FlowsError: There is no such endpoint in service, it has no instances, or it is not this project's.
        RequestRefusedError: AWS refused, with its reason.
    """
    found = _in_service(endpoint)
    owner = current_owner(None)  # it goes with its endpoint
    tags = {tag["Key"]: tag["Value"] for tag in tags_of(owner, digest_of(scaling.model_dump()))}
    how = targets.put_scaling(endpoint, scaling, tags)
    run_logger().info("Endpoint %s: its scaling is %s", endpoint, how)
    instance_type = _instance_type(found)
    return ScalingResult(
        endpoint=endpoint,
        how=how,
        scaling=scaling,
        instances=found["ProductionVariants"][0]["CurrentInstanceCount"],
        alarms=targets.alarms_of(endpoint),
        activities=targets.activities_of(endpoint),
        load=targets.load_of(endpoint),
        most_hourly_usd=hourly_usd("hosting", instance_type, settings.region, scaling.max_instances),
    )


@contextmanager
def scaling_kept(spec: EndpointSpec) -> Iterator[None]:
    """Keep an endpoint scaled over an update that AWS refuses for what is scaled: one to another instance type."""
    found = describe(ENDPOINTS, spec.name) if spec.name else None
    if spec.name is None or found is None or is_serverless(found):
        yield
    elif targets.is_scaled(spec.name) and _instance_type(found) != spec.compute.instance_type:
        run_logger().info("Endpoint %s is taken off scaling while its instance type changes", spec.name)
        with targets.off_scaling(spec.name):
            yield
    else:
        yield


def _in_service(endpoint: str) -> Description:
    found = describe(ENDPOINTS, endpoint)
    # One that is being scaled at the moment is Updating.
    if found is None or found["EndpointStatus"] in ("Creating", "Failed", "Deleting"):
        status = "there is none of that name" if found is None else f"it is {found['EndpointStatus']}"
        msg = f"The endpoint {endpoint} is not in service, {status}: deploy a model there first (deploy_endpoint)"
        raise FlowsError(msg)
    if is_serverless(found):
        msg = f"The endpoint {endpoint} is serverless: it scales by itself, up to its max_concurrency"
        raise FlowsError(msg)
    if not is_ours(found["EndpointArn"]):
        msg = f"The endpoint {endpoint} is not one of this project's: it is left alone"
        raise FlowsError(msg)
    return found


def _instance_type(found: Description) -> str:
    config = describe(ENDPOINT_CONFIGS, found["EndpointConfigName"]) or {}
    return str(config["ProductionVariants"][0].get("InstanceType", ""))

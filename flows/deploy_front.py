"""Put a Lambda function in front of an endpoint: callers need its URL and a signature, and nothing of SageMaker.

python -m flows.deploy_endpoint MODEL --name flows-live      what it asks: the one endpoint that its role may ask
python -m flows.deploy_front
python -m flows.deploy_front --manifest s3://…/dataset.json --front.reserved-concurrency 20
"""

from datetime import timedelta
from typing import Annotated

from prefect import flow

from flows import command_line
from tasks.aws.settings import load_settings
from tasks.cancellation import stop_what_it_started
from tasks.contracts import ExpiryHours, FrontConfig, FrontResult, FrontSpec, S3Uri, StepResult, titled
from tasks.datasets import fetch_images, load_dataset
from tasks.functions import deploy_function
from tasks.reports import report_front
from tasks.results import kept_as_json

_PICTURES_ASKED = 4


@kept_as_json
@flow(
    name="deploy-front",
    flow_run_name="put {front.name} in front",
    on_cancellation=[stop_what_it_started],
)
def deploy_front(
    *,
    front: Annotated[FrontConfig, titled("Function in front")] = FrontConfig(),
    manifest: Annotated[S3Uri | None, titled("Dataset manifest")] = None,
    expires_after_hours: Annotated[ExpiryHours | None, titled("Expires after (hours)")] = None,
) -> StepResult[FrontResult]:
    """Create or update the function in front of an endpoint; a version that does not answer is taken back.

    It asks the endpoint that the foundation names (FrontEndpoint), and its role may ask no other.

    Args:
        front: The function.
        manifest: A dataset whose test pictures the function is asked about: s3://…/dataset.json.
        expires_after_hours: When reap_orphans may end what is kept warm for it, written in its tags; none: never.
    """
    settings = load_settings()
    pictures = fetch_images(load_dataset(manifest), "test", _PICTURES_ASKED) if manifest else ()
    spec = FrontSpec(endpoint_name=settings.front_endpoint, config=front)
    lifetime = timedelta(hours=expires_after_hours) if expires_after_hours else None
    result = deploy_function(spec, settings, pictures, lifetime)
    return StepResult(result=result, sections=(report_front(result),))


if __name__ == "__main__":
    command_line.run(deploy_front, lambda step: step.result.url)

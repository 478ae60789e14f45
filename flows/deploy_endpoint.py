"""Deploy a trained model as a SageMaker endpoint, and ask it about a few test pictures.

python -m flows.deploy_endpoint s3://BUCKET/jobs/JOB/output/model.tar.gz
python -m flows.deploy_endpoint MODEL --manifest s3://BUCKET/datasets/digits/versions/DIGEST/dataset.json
"""

from datetime import timedelta

from prefect import flow

from flows import command_line
from tasks.aws.settings import load_settings
from tasks.contracts import Deployment, EndpointCompute, EndpointSpec, S3Uri, StepResult
from tasks.datasets import fetch_images, load_dataset
from tasks.endpoints import ask_endpoint, await_endpoint, deleted_on_failure, find_serving_image, start_endpoint
from tasks.reports import report_endpoint

_PICTURES_ASKED = 8


@flow(name="deploy-endpoint", flow_run_name="deploy on {compute.instance_type}")
def deploy_endpoint(
    model: S3Uri,
    *,
    manifest: S3Uri | None = None,
    compute: EndpointCompute = EndpointCompute(),
    expires_after_hours: float = 24,
    fresh: bool = False,
) -> StepResult[Deployment]:
    """Deploy a model package; an endpoint with the same content that is in service is taken as it is.

    Args:
        model: The model package, s3://…/model.tar.gz.
        manifest: A dataset whose test pictures the endpoint is asked about: s3://…/dataset.json.
        compute: The machines behind the endpoint.
        expires_after_hours: When the endpoint may be taken away as forgotten; written in its tags.
        fresh: Deploy anew even if this very endpoint is in service.
    """
    settings = load_settings()
    spec = EndpointSpec(
        model_s3_uri=model,
        image_uri=find_serving_image(settings, compute.instance_type),
        compute=compute,
        fresh=fresh,
    )
    submission = start_endpoint(spec, settings, timedelta(hours=expires_after_hours))
    with deleted_on_failure(submission):
        endpoint = await_endpoint(submission, spec, settings)
        pictures = fetch_images(load_dataset(manifest), "test", _PICTURES_ASKED) if manifest else ()
        deployment = Deployment(endpoint=endpoint, answers=ask_endpoint(endpoint.name, pictures))
    return StepResult(result=deployment, sections=(report_endpoint(deployment),))


if __name__ == "__main__":
    command_line.run(deploy_endpoint, lambda step: step.result.endpoint.name)

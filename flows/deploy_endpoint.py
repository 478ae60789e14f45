"""Deploy a trained model as a SageMaker endpoint, and ask it about a few test pictures.

python -m flows.deploy_endpoint s3://BUCKET/jobs/JOB/output/model.tar.gz
python -m flows.deploy_endpoint MODEL --manifest s3://BUCKET/datasets/digits/versions/DIGEST/dataset.json
python -m flows.deploy_endpoint MODEL --name flows-live --rollout.shift linear --rollout.step-percent 20
python -m flows.deploy_endpoint MODEL --compute.serverless.memory-mb 2048
"""

from datetime import timedelta

from prefect import flow

from flows import command_line
from tasks.aws.settings import load_settings
from tasks.contracts import (
    FORGOTTEN_AFTER_HOURS,
    Deployment,
    EndpointCompute,
    EndpointName,
    EndpointSpec,
    ExpiryHours,
    Rollout,
    S3Uri,
    StepResult,
)
from tasks.datasets import fetch_images, load_dataset
from tasks.endpoints import (
    ask_endpoint,
    await_endpoint,
    await_rest,
    find_serving_image,
    start_endpoint,
    undone_on_failure,
)
from tasks.health import keep_baseline
from tasks.reports import report_endpoint
from tasks.scaling import scaling_kept
from tasks.signals import SignalsHeld

_PICTURES_ASKED, _PICTURES_SHOWN = 32, 8


@flow(name="deploy-endpoint", flow_run_name="deploy on {compute.machines}")
def deploy_endpoint(
    model: S3Uri,
    *,
    manifest: S3Uri | None = None,
    compute: EndpointCompute = EndpointCompute(),
    name: EndpointName | None = None,
    rollout: Rollout = Rollout(),
    expires_after_hours: ExpiryHours | None = None,
    fresh: bool = False,
) -> StepResult[Deployment]:
    """Deploy a model package; an endpoint with the same content that is in service is taken as it is.

    An endpoint with a lasting name is updated without losing a request, and rolled back by itself when the new model
    fails.

    Args:
        model: The model package, s3://…/model.tar.gz.
        manifest: A dataset whose test pictures the endpoint is asked about: s3://…/dataset.json.
        compute: What the endpoint runs on.
        name: The endpoint's lasting name; none: one of its own, which follows from its content.
        rollout: How requests move to the new model when the endpoint of that name is in service already.
        expires_after_hours: When reap_orphans may take the endpoint away as forgotten, written in its tags; none: after
            a day, and never one that has a lasting name.
        fresh: Deploy anew even if this very endpoint is in service.
    """
    settings = load_settings()
    spec = EndpointSpec(
        model_s3_uri=model,
        image_uri=find_serving_image(settings, compute.instance_type),
        compute=compute,
        name=name,
        rollout=rollout,
        fresh=fresh,
    )
    if name:
        await_rest(name)
    with scaling_kept(spec), SignalsHeld("the start of the endpoint") as signals:
        hours = expires_after_hours or (None if name else FORGOTTEN_AFTER_HOURS)
        submission = start_endpoint(spec, settings, timedelta(hours=hours) if hours else None)
        with undone_on_failure(submission), signals.heard():
            endpoint = await_endpoint(submission, spec, settings)
            pictures = fetch_images(load_dataset(manifest), "test", _PICTURES_ASKED) if manifest else ()
            answers = ask_endpoint(endpoint.name, pictures)
            if manifest and endpoint.how != "reused":  # what it was like at first is what it is held against later
                keep_baseline(endpoint, answers, manifest)
            deployment = Deployment(endpoint=endpoint, answers=answers[:_PICTURES_SHOWN])
    return StepResult(result=deployment, sections=(report_endpoint(deployment),))


if __name__ == "__main__":
    command_line.run(deploy_endpoint, lambda step: step.result.endpoint.name)

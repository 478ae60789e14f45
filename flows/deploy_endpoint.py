"""Deploy a trained model as a SageMaker endpoint, and ask it about a few test pictures.

python -m flows.deploy_endpoint s3://BUCKET/jobs/JOB/output/model.tar.gz
python -m flows.deploy_endpoint MODEL --manifest s3://BUCKET/datasets/digits/versions/DIGEST/dataset.json
python -m flows.deploy_endpoint MODEL --name flows-live --rollout.shift linear --rollout.step-percent 20
python -m flows.deploy_endpoint MODEL --compute.serverless.memory-mb 2048
"""

from datetime import timedelta
from typing import Annotated

from prefect import flow

from flows import command_line
from tasks.aws.settings import load_settings
from tasks.cancellation import stop_what_it_started
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
    titled,
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
from tasks.events import tell_deployed
from tasks.health import health_of, keep_baseline
from tasks.reports import report_endpoint
from tasks.results import kept_as_json
from tasks.scaling import scaling_kept
from tasks.signals import SignalsHeld

_PICTURES_ASKED, _PICTURES_SHOWN = 32, 8


@kept_as_json
@flow(
    name="deploy-endpoint",
    flow_run_name="deploy on {compute.machines}",
    on_cancellation=[stop_what_it_started],
)
def deploy_endpoint(
    model: Annotated[S3Uri, titled("Model package")],
    *,
    manifest: Annotated[S3Uri | None, titled("Dataset manifest")] = None,
    compute: Annotated[EndpointCompute, titled("Machines")] = EndpointCompute(),
    name: Annotated[EndpointName | None, titled("Lasting name")] = None,
    rollout: Annotated[Rollout, titled("Rollout")] = Rollout(),
    expires_after_hours: Annotated[ExpiryHours | None, titled("Expires after (hours)")] = None,
    fresh: Annotated[bool, titled("Deploy anew")] = False,
) -> StepResult[Deployment]:
    """Deploy a model package; an endpoint with the same content that is in service is taken as it is.

    An endpoint with a lasting name is updated without losing a request, and rolled back by itself when the new model
    fails.

    Args:
        model: The model package, s3://…/model.tar.gz.
        manifest: A dataset whose test pictures the endpoint is asked about: s3://…/dataset.json.
        compute: What the endpoint runs on.
        name: The endpoint's lasting name, flows-…; none: one of its own, which follows from its content.
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
            deployment = Deployment(
                endpoint=endpoint,
                answers=answers[:_PICTURES_SHOWN],
                health=health_of(answers) if answers else None,
                milliseconds=tuple(one.answer.milliseconds for one in answers),
            )
    tell_deployed(deployment)
    return StepResult(result=deployment, sections=(report_endpoint(deployment),))


if __name__ == "__main__":
    command_line.run(deploy_endpoint, lambda step: step.result.endpoint.name)

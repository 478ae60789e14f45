"""What flows that train have in common."""

from tasks.aws.errors import CapacityError
from tasks.aws.jobs import TRAINING_JOBS
from tasks.aws.settings import Settings, load_settings
from tasks.confusions import worth_a_look
from tasks.contracts import (
    Compute,
    Dataset,
    Hyperparameters,
    S3Uri,
    StepResult,
    TrainedModel,
    TrainingResult,
    TrainingSpec,
    Way,
)
from tasks.datasets import fetch_predicted, load_dataset
from tasks.events import tell_trained
from tasks.programs import upload_training_program
from tasks.reports import report_training
from tasks.runs import stopped_on_failure
from tasks.signals import SignalsHeld
from tasks.training_jobs import (
    await_training_job,
    fetch_training_report,
    find_training_image,
    find_training_job,
    start_training_job,
)


def training_spec(
    manifest: S3Uri, hyperparameters: Hyperparameters, compute: Compute, settings: Settings, *, step: str, fresh: bool
) -> TrainingSpec:
    """Return a training job's spec; the program is sent unless it is there."""
    return TrainingSpec(
        image_uri=find_training_image(settings, compute.instance_type),
        dataset=load_dataset(manifest),
        hyperparameters=hyperparameters,
        compute=compute,
        program_s3_uri=upload_training_program(settings),
        step=step,
        fresh=fresh,
    )


def train(
    manifest: S3Uri,
    hyperparameters: Hyperparameters,
    compute: Compute,
    *,
    way: Way,
    step: str,
    fresh: bool,
) -> StepResult[TrainedModel]:
    """Run a training job, and show what came of it; where there is no capacity, the other types are tried in turn.

    Raises:
        CapacityError: There is no capacity for any of the types.
    """
    settings = load_settings()
    rungs = _rungs(training_spec(manifest, hyperparameters, compute, settings, step=step, fresh=fresh), settings)
    # What a lower rung has done, or is doing, is not paid for again on a higher one.
    done = [spec for spec in rungs if len(rungs) > 1 and find_training_job(spec, settings)]
    tried: list[str] = []
    for spec in (*done, *(spec for spec in rungs if spec not in done)):
        try:
            job = _run(spec, settings)
        except CapacityError:
            tried.append(spec.compute.instance_type)
            continue
        return trained(job, way, spec.dataset)
    raise CapacityError(tuple(tried))


def trained(job: TrainingResult, way: Way, dataset: Dataset) -> StepResult[TrainedModel]:
    """Read what the training program has reported, and show it with the test pictures that are worth a look."""
    model = TrainedModel(way=way, job=job, report=fetch_training_report(job))
    tell_trained(model)
    pictures = fetch_predicted(dataset, worth_a_look(model.report))
    return StepResult(result=model, sections=(report_training(model, pictures),))


def _run(spec: TrainingSpec, settings: Settings) -> TrainingResult:
    with SignalsHeld("the start of the training job") as signals:
        submission = start_training_job(spec, settings)
        with stopped_on_failure(TRAINING_JOBS, submission), signals.heard():
            return await_training_job(submission, spec, settings)


def _rungs(spec: TrainingSpec, settings: Settings) -> list[TrainingSpec]:
    """Return the training on each of the instance types that may be tried, in their order."""
    others = [
        spec.model_copy(
            update={
                "compute": spec.compute.model_copy(update={"instance_type": instance_type}),
                "image_uri": find_training_image(settings, instance_type),
            }
        )
        for instance_type in spec.compute.fallbacks
    ]
    return [spec, *others]

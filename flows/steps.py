"""What flows that train have in common."""

from tasks.aws.errors import CapacityError
from tasks.aws.settings import Settings, load_settings
from tasks.contracts import Compute, Hyperparameters, S3Uri, StepResult, TrainedModel, TrainingSpec, Way
from tasks.datasets import load_dataset
from tasks.programs import upload_training_program
from tasks.reports import report_training
from tasks.training_jobs import await_training_job, fetch_training_report, find_training_image, start_training_job


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
    tried: list[str] = []
    for instance_type in (compute.instance_type, *compute.fallbacks):
        machine = compute.model_copy(update={"instance_type": instance_type})
        spec = training_spec(manifest, hyperparameters, machine, settings, step=step, fresh=fresh)
        try:
            job = await_training_job(start_training_job(spec, settings), spec, settings)
        except CapacityError:
            tried.append(instance_type)
            continue
        model = TrainedModel(way=way, job=job, report=fetch_training_report(job))
        return StepResult(result=model, sections=(report_training(model),))
    raise CapacityError(tuple(tried))

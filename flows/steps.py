"""What flows that train have in common."""

from tasks.aws.settings import Settings
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


def run_training_job(spec: TrainingSpec, settings: Settings, way: Way) -> StepResult[TrainedModel]:
    """Start a training job, wait for it, and show what came of it."""
    job = await_training_job(start_training_job(spec, settings), spec, settings)
    model = TrainedModel(way=way, job=job, report=fetch_training_report(job))
    return StepResult(result=model, sections=(report_training(model),))

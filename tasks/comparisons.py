"""The ways of training side by side."""

from collections.abc import Sequence

from tasks.contracts import ComparedTraining, TrainedModel, Way
from tasks.markdown import machines

_CODE_PATHS: dict[Way, str] = {
    "single instance": "a training job; one process that has all the pictures",
    "several instances": (
        "a training job; one process group over its instances: each batch is shared, gradients are summed, metrics "
        "reduced, and the first instance saves the one model"
    ),
    "EC2": (
        "no job: the same program on a plain instance, sent through SSM Run Command; it fetches the data and sends the "
        "model itself, and the instance is terminated"
    ),
}
_LATER_PHASES = ("Downloading", "Training", "Uploading")


def compare(models: Sequence[TrainedModel]) -> tuple[ComparedTraining, ...]:
    """Return a row per model; whatever came before the download is start-up."""
    return tuple(_row(model) for model in models)


def _row(model: TrainedModel) -> ComparedTraining:
    job, report = model.job, model.report
    seconds = job.phase_seconds
    return ComparedTraining(
        way=model.way,
        machines=machines(job.instance_type, job.instance_count),
        job=job.name,
        how=job.how,
        start_up_seconds=sum(took for phase, took in seconds.items() if phase not in (*_LATER_PHASES, "Completed")),
        download_seconds=seconds.get("Downloading", 0.0),
        training_seconds=seconds.get("Training", 0.0),
        upload_seconds=seconds.get("Uploading", 0.0),
        images_per_second=report.images_per_second,
        billable_seconds=job.billable_seconds,
        cost_usd=job.cost_usd,
        valid_accuracy=report.best.valid_accuracy,
        test_accuracy=report.test.accuracy,
        code_path=_CODE_PATHS[model.way],
    )

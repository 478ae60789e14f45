"""Tune hyperparameters: a SageMaker tuning job whose best trial's hyperparameters the trainings are given.

python -m flows.tune_hyperparameters s3://BUCKET/datasets/digits/versions/DIGEST/dataset.json
python -m flows.tune_hyperparameters MANIFEST --tuning.strategy Random --tuning.trials 12 --tuning.parallel 4
"""

from typing import Annotated

from prefect import flow

from flows import command_line
from flows.steps import training_spec
from tasks.aws.jobs import TUNING_JOBS
from tasks.aws.requests import check_tuning
from tasks.aws.settings import load_settings
from tasks.cancellation import stop_what_it_started
from tasks.contracts import Compute, Hyperparameters, S3Uri, StepResult, TuningConfig, TuningResult, TuningSpec, titled
from tasks.costs import within_budget
from tasks.reports import report_tuning
from tasks.results import kept_as_json
from tasks.runs import stopped_on_failure
from tasks.signals import SignalsHeld
from tasks.tuning_jobs import await_tuning_job, start_tuning_job


@kept_as_json
@flow(
    name="tune-hyperparameters",
    flow_run_name="tune {hyperparameters.architecture} in {tuning.trials} trials",
    on_cancellation=[stop_what_it_started],
)
def tune_hyperparameters(
    manifest: Annotated[S3Uri, titled("Dataset manifest")],
    *,
    tuning: Annotated[TuningConfig, titled("Search")] = TuningConfig(),
    hyperparameters: Annotated[Hyperparameters, titled("Hyperparameters")] = Hyperparameters(),
    compute: Annotated[Compute, titled("Machine of a trial")] = Compute(),
    fresh: Annotated[bool, titled("Search anew")] = False,
) -> StepResult[TuningResult]:
    """Search hyperparameters on validation; a search with the same content is adopted or reused, never paid twice.

    Args:
        manifest: The dataset: what upload_dataset printed, s3://…/dataset.json.
        tuning: Where and how to search, and how much of it.
        hyperparameters: What is not searched.
        compute: The machine of each trial, and its limits; without fallbacks, since all trials have the same machine.
        fresh: Search anew even if this very search has completed before.
    """
    check_tuning(tuning, hyperparameters, compute)
    settings = load_settings()
    config = within_budget(tuning, compute, settings.region)
    trial = training_spec(manifest, hyperparameters, compute, settings, step="tune", fresh=fresh)
    spec = TuningSpec(trial=trial, config=config)
    with SignalsHeld("the start of the tuning job") as signals:
        submission = start_tuning_job(spec, settings)
        with stopped_on_failure(TUNING_JOBS, submission), signals.heard():
            result = await_tuning_job(submission, spec, settings)
    return StepResult(result=result, sections=(report_tuning(result),))


def show(step: StepResult[TuningResult]) -> str:
    """Say what was found, as the options of a training."""
    found = step.result.hyperparameters
    values = {name: getattr(found, name) for name in sorted(step.result.best.hyperparameters)}
    return " ".join(f"--hyperparameters.{name.replace('_', '-')} {value}" for name, value in values.items())


if __name__ == "__main__":
    command_line.run(tune_hyperparameters, show)

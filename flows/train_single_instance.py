"""Train on one instance: a SageMaker training job over an uploaded dataset.

python -m flows.train_single_instance s3://BUCKET/datasets/digits/versions/DIGEST/dataset.json
python -m flows.train_single_instance MANIFEST --hyperparameters.epochs 30 --compute.instance-type ml.c5.xlarge
"""

from typing import Annotated

from prefect import flow

from flows import command_line
from flows.steps import train
from tasks.cancellation import stop_what_it_started
from tasks.contracts import Compute, Hyperparameters, S3Uri, StepResult, TrainedModel, titled
from tasks.results import kept_as_json


@kept_as_json
@flow(
    name="train-single-instance",
    flow_run_name="train {hyperparameters.architecture} on {compute.instance_type}",
    on_cancellation=[stop_what_it_started],
)
def train_single_instance(
    manifest: Annotated[S3Uri, titled("Dataset manifest")],
    *,
    hyperparameters: Annotated[Hyperparameters, titled("Hyperparameters")] = Hyperparameters(),
    compute: Annotated[Compute, titled("Machine")] = Compute(),
    fresh: Annotated[bool, titled("Train anew")] = False,
) -> StepResult[TrainedModel]:
    """Train a model on one instance; a job with the same content is adopted or reused, never paid twice.

    Args:
        manifest: The dataset: what upload_dataset printed, s3://…/dataset.json.
        hyperparameters: What the training program is told.
        compute: The machine and its limits.
        fresh: Train anew even if this very training has completed before.
    """
    alone = compute.model_copy(update={"instance_count": 1})
    return train(manifest, hyperparameters, alone, way="single instance", step="train-single", fresh=fresh)


if __name__ == "__main__":
    command_line.run(train_single_instance, lambda step: step.result.job.model_s3_uri)

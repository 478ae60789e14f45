"""Train on several instances: one SageMaker training job, one model.

python -m flows.train_multi_instance s3://BUCKET/datasets/digits/versions/DIGEST/dataset.json
python -m flows.train_multi_instance MANIFEST --compute.instance-count 2 --hyperparameters.batch-size 256
"""

from typing import Annotated

from prefect import flow

from flows import command_line
from flows.steps import train
from tasks.cancellation import stop_what_it_started
from tasks.contracts import Hyperparameters, S3Uri, SeveralCompute, StepResult, TrainedModel, titled
from tasks.results import kept_as_json


@kept_as_json
@flow(
    name="train-multi-instance",
    flow_run_name="train {hyperparameters.architecture} on {compute.machines}",
    on_cancellation=[stop_what_it_started],
)
def train_multi_instance(
    manifest: Annotated[S3Uri, titled("Dataset manifest")],
    *,
    hyperparameters: Annotated[Hyperparameters, titled("Hyperparameters")] = Hyperparameters(),
    compute: Annotated[SeveralCompute, titled("Machines")] = SeveralCompute(),
    fresh: Annotated[bool, titled("Train anew")] = False,
) -> StepResult[TrainedModel]:
    """Train one model on several instances; a job with the same content is adopted or reused, never paid twice.

    The instances share each batch, so batch size and learning rate mean what they mean on one instance, and so does
    the result. Larger batches keep more instances busy.

    Args:
        manifest: The dataset: what upload_dataset printed, s3://…/dataset.json.
        hyperparameters: What the training program is told.
        compute: The machines and their limits.
        fresh: Train anew even if this very training has completed before.
    """
    return train(manifest, hyperparameters, compute, way="several instances", step="train-multi", fresh=fresh)


if __name__ == "__main__":
    command_line.run(train_multi_instance, lambda step: step.result.job.model_s3_uri)

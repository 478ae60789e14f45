"""Train on a plain EC2 instance: the same program, sent through SSM Run Command, and the instance ended afterwards.

python -m flows.train_on_ec2 s3://BUCKET/datasets/digits/versions/DIGEST/dataset.json
python -m flows.train_on_ec2 MANIFEST --compute.instance-type g4dn.xlarge --compute.spot
"""

from typing import Annotated

from prefect import flow

from flows import command_line
from flows.steps import trained
from tasks.aws.errors import InstanceLostError
from tasks.aws.settings import Settings, load_settings
from tasks.cancellation import stop_what_it_started
from tasks.contracts import (
    Ec2Compute,
    Ec2TrainingSpec,
    Hyperparameters,
    S3Uri,
    StepResult,
    TrainedModel,
    TrainingResult,
    titled,
)
from tasks.datasets import load_dataset
from tasks.instances import (
    await_command,
    ended_afterwards,
    ended_if_lost,
    find_finished_training,
    find_machine_image,
    launch_instance,
    start_command,
)
from tasks.programs import upload_training_program
from tasks.results import kept_as_json
from tasks.runs import run_logger
from tasks.signals import SignalsHeld


@kept_as_json
@flow(
    name="train-on-ec2",
    flow_run_name="train {hyperparameters.architecture} on EC2 {compute.instance_type}",
    on_cancellation=[stop_what_it_started],
)
def train_on_ec2(
    manifest: Annotated[S3Uri, titled("Dataset manifest")],
    *,
    hyperparameters: Annotated[Hyperparameters, titled("Hyperparameters")] = Hyperparameters(),
    compute: Annotated[Ec2Compute, titled("Machine")] = Ec2Compute(),
    fresh: Annotated[bool, titled("Train anew")] = False,
) -> StepResult[TrainedModel]:
    """Train a model on a plain EC2 instance; the same training is adopted or reused, never paid twice.

    Args:
        manifest: The dataset: what upload_dataset printed, s3://…/dataset.json.
        hyperparameters: What the training program is told.
        compute: The machine, and how long it may live.
        fresh: Train anew even if this very training has completed before.
    """
    settings = load_settings()
    image_id, root_device = find_machine_image(compute.image_parameter)
    spec = Ec2TrainingSpec(
        dataset=load_dataset(manifest),
        hyperparameters=hyperparameters,
        compute=compute,
        program_s3_uri=upload_training_program(settings),
        image_id=image_id,
        root_device=root_device,
        fresh=fresh,
    )
    job = find_finished_training(spec, settings) or _train(spec, settings)
    return trained(job, "EC2", spec.dataset)


def _train(spec: Ec2TrainingSpec, settings: Settings) -> TrainingResult:
    """Train; what a reclaimed spot instance has left as checkpoints, an on-demand one goes on from."""
    try:
        return _train_once(spec, settings)
    except InstanceLostError as error:
        if not spec.compute.spot:
            raise
        run_logger().warning("%s; going on on demand", error)
        on_demand = spec.compute.model_copy(update={"spot": False})
        return _train_once(spec.model_copy(update={"compute": on_demand}), settings)


def _train_once(spec: Ec2TrainingSpec, settings: Settings) -> TrainingResult:
    with SignalsHeld("the launch or the end of an instance") as signals:
        with ended_if_lost(spec):
            launch = launch_instance(spec, settings)
        with ended_afterwards(launch), signals.heard():
            command_id = start_command(launch, spec, settings)
            return await_command(launch, command_id, spec, settings)


if __name__ == "__main__":
    command_line.run(train_on_ec2, lambda step: step.result.job.model_s3_uri)

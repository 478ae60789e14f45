"""Compare three ways of training: one instance, several instances, and a plain EC2 machine.

python -m flows.compare_training s3://BUCKET/datasets/digits/versions/DIGEST/dataset.json
python -m flows.compare_training MANIFEST --several.instance-count 2 --keep-endpoints
"""

from contextlib import ExitStack
from typing import Annotated

from prefect import flow

from flows import command_line
from flows.deploy_endpoint import deploy_endpoint
from flows.teardown import teardown
from flows.train_multi_instance import train_multi_instance
from flows.train_on_ec2 import train_on_ec2
from flows.train_single_instance import train_single_instance
from tasks.cancellation import stop_what_it_started
from tasks.comparisons import compare
from tasks.contracts import (
    Comparison,
    Compute,
    Deployment,
    Ec2Compute,
    EndpointCompute,
    Hyperparameters,
    S3Uri,
    SeveralCompute,
    StepResult,
    TrainedModel,
    titled,
)
from tasks.markdown import table, usd
from tasks.reports import report_comparison
from tasks.results import kept_as_json


@kept_as_json
@flow(
    name="compare-training",
    flow_run_name="compare three ways to train {hyperparameters.architecture}",
    on_cancellation=[stop_what_it_started],
)
def compare_training(
    manifest: Annotated[S3Uri, titled("Dataset manifest")],
    *,
    hyperparameters: Annotated[Hyperparameters, titled("Hyperparameters")] = Hyperparameters(),
    compute: Annotated[Compute, titled("Single instance")] = Compute(),
    several: Annotated[SeveralCompute, titled("Several instances")] = SeveralCompute(),
    ec2: Annotated[Ec2Compute, titled("EC2 instance")] = Ec2Compute(),
    endpoint: Annotated[EndpointCompute, titled("Endpoints")] = EndpointCompute(),
    keep_endpoints: Annotated[bool, titled("Keep the endpoints")] = False,
    fresh: Annotated[bool, titled("Train and deploy anew")] = False,
) -> StepResult[Comparison]:
    """Train the same three ways, and deploy the models of the training jobs; what is there already is reused.

    Args:
        manifest: The dataset: what upload_dataset printed, s3://…/dataset.json.
        hyperparameters: What each training is told.
        compute: The single instance.
        several: The several instances.
        ec2: The plain EC2 instance.
        endpoint: The machines behind each endpoint.
        keep_endpoints: Leave the endpoints in service, and billing.
        fresh: Train and deploy anew even if this very work has been done before.
    """
    gone: list[str] = []
    with ExitStack() as afterwards:  # also when a later step fails: nothing is left billing

        def deploy(trained: StepResult[TrainedModel]) -> StepResult[Deployment]:
            model = trained.result.job.model_s3_uri
            step = deploy_endpoint(model, manifest=manifest, compute=endpoint, fresh=fresh)
            # One that was in service before belongs to somebody else.
            if step.result.endpoint.ours and not keep_endpoints:
                afterwards.callback(lambda: gone.extend(teardown(step.result.endpoint.name).deleted))
            return step

        alone = train_single_instance(manifest, hyperparameters=hyperparameters, compute=compute, fresh=fresh)
        first = deploy(alone)
        together = train_multi_instance(manifest, hyperparameters=hyperparameters, compute=several, fresh=fresh)
        second = deploy(together)
        plain = train_on_ec2(manifest, hyperparameters=hyperparameters, compute=ec2, fresh=fresh)
    trainings = (alone.result, together.result, plain.result)
    rows = compare(trainings)
    comparison = Comparison(
        trainings=trainings, rows=rows, deployments=(first.result, second.result), deleted=tuple(gone)
    )
    steps = (*alone.sections, *first.sections, *together.sections, *second.sections, *plain.sections)
    return StepResult(result=comparison, sections=(*steps, report_comparison(rows)))


def show(step: StepResult[Comparison]) -> str:
    """Say what each way took, cost and came to."""
    rows = [
        [row.way, row.machines, f"{row.training_seconds:.1f}", usd(row.cost_usd), f"{row.test_accuracy:.2%}"]
        for row in step.result.rows
    ]
    return table(["way", "machines", "training s", "cost", "test"], rows)


if __name__ == "__main__":
    command_line.run(compare_training, show)

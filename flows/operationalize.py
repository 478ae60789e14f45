"""The whole journey: upload a dataset, train a model on it, deploy it, ask it, and take it down again.

make demo                                       on this machine, no account
python -m flows.operationalize                  against the AWS that the environment points at
python -m flows.operationalize --dataset.source ~/pictures --keep-endpoint
"""

from datetime import UTC, datetime
from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run

from flows import command_line
from flows.deploy_endpoint import deploy_endpoint
from flows.teardown import teardown
from flows.train_single_instance import train_single_instance
from flows.upload_dataset import upload_dataset
from tasks.aws.settings import load_settings
from tasks.contracts import (
    Compute,
    DatasetSpec,
    EndpointCompute,
    Hyperparameters,
    RunReport,
)
from tasks.costs import endpoint_cost, training_cost
from tasks.markdown import usd
from tasks.reports import report_costs, write_report

# What suits pictures of things: a network that has seen ImageNet, of which only the last layer is trained.
PHOTO_HYPERPARAMETERS = Hyperparameters(
    architecture="resnet50", weights="imagenet", trainable="head", image_size=224, learning_rate=0.001
)


@flow(name="operationalize", flow_run_name="operationalize {dataset.source}")
def operationalize(
    *,
    dataset: DatasetSpec = DatasetSpec(),
    hyperparameters: Hyperparameters | None = None,
    compute: Compute = Compute(),
    endpoint: EndpointCompute = EndpointCompute(),
    keep_endpoint: bool = False,
    fresh: bool = False,
    reports_folder: str = "runs",
) -> RunReport:
    """Take a folder of labelled pictures to a trained, deployed and measured model.

    Args:
        dataset: Which pictures.
        hyperparameters: What the training program is told; what suits the dataset when left out.
        compute: The machine that trains.
        endpoint: The machines that serve.
        keep_endpoint: Leave the endpoint in service, and billing.
        fresh: Train and deploy anew even if this very work has been done before.
        reports_folder: Where the files of the report go.
    """
    settings = load_settings()
    upload = upload_dataset(dataset=dataset)
    manifest = upload.result.dataset.manifest_s3_uri
    chosen = hyperparameters or hyperparameters_for(dataset)
    training = train_single_instance(manifest, hyperparameters=chosen, compute=compute, fresh=fresh)
    model = training.result.job.model_s3_uri
    deployment = deploy_endpoint(model, manifest=manifest, compute=endpoint, fresh=fresh)
    gone = None if keep_endpoint else teardown(deployment.result.endpoint.name)
    costs = (
        training_cost(training.result.job, compute, settings.region),
        endpoint_cost(deployment.result.endpoint, settings.region, datetime.now(tz=UTC), kept=keep_endpoint),
    )
    run = RunReport(
        folder=str(Path(reports_folder) / _folder_name()),
        title=f"{upload.result.dataset.name}: {training.result.report.test.accuracy:.2%} of the test pictures right",
        upload=upload.result,
        training=training.result,
        deployment=deployment.result,
        costs=costs,
        teardown=gone,
    )
    sections = (upload.section, training.section, deployment.section, report_costs(costs, settings.region))
    write_report(run, sections)
    return run


def hyperparameters_for(dataset: DatasetSpec) -> Hyperparameters:
    """Return what suits a dataset: a small network of its own for digits, a pretrained one for photographs."""
    return Hyperparameters() if dataset.source == "digits" else PHOTO_HYPERPARAMETERS


def show(run: RunReport) -> str:
    """Say what was made, how good it is, what it said, what it cost, what is gone, and where to look."""
    upload, job, deployment = run.upload, run.training.job, run.deployment
    test = run.training.report.test
    answers = [
        f"  {sample.image.name}: {sample.answer.label} ({sample.answer.probability:.1%}), true {sample.image.label}"
        for sample in deployment.answers
    ]
    costs = [f"  {cost.step}: {usd(cost.billed_usd)} ({cost.machines}, {cost.note})" for cost in run.costs]
    gone = run.teardown.deleted if run.teardown else (f"nothing: {deployment.endpoint.name} is in service, and bills",)
    return "\n".join(
        [
            f"\nDataset    {upload.dataset.manifest_s3_uri}",
            f"           {upload.dataset.total_files} pictures, {upload.files_sent} of them sent now",
            f"Training   {job.name} ({job.how})",
            f"Model      {job.model_s3_uri}",
            f"Accuracy   {test.accuracy:.2%} of {len(test.predictions)} test pictures",
            f"Endpoint   {deployment.endpoint.name} ({deployment.endpoint.how})",
            "Answers",
            *answers,
            "Cost on AWS",
            *costs,
            "Torn down",
            *(f"  {name}" for name in gone),
            f"Report     {run.folder}/report.html",
        ]
    )


def _folder_name() -> str:
    """Return when and which run this is; a run's own name may be anything, a folder's may not."""
    return f"{datetime.now(tz=UTC):%Y%m%d-%H%M%S}-{str(flow_run.id)[:8]}"


if __name__ == "__main__":
    command_line.run(operationalize, show)

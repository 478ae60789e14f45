"""The whole journey: upload, tune, train three ways, deploy, compare, go live with the best, and take all down again.

make demo                                       on this machine, no account
python -m flows.operationalize                  against the AWS that the environment points at
python -m flows.operationalize --dataset.source ~/pictures --keep-endpoints
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run

from flows import command_line
from flows.compare_training import compare_training
from flows.go_live import go_live, lines_of
from flows.tune_hyperparameters import tune_hyperparameters
from flows.upload_dataset import upload_dataset
from tasks.aws.settings import load_settings
from tasks.contracts import (
    WAYS,
    Comparison,
    Compute,
    CostLine,
    DatasetSpec,
    Deployment,
    Ec2Compute,
    EndpointCompute,
    FrontConfig,
    Hyperparameters,
    LiveResult,
    RunReport,
    SeveralCompute,
    Traffic,
    TuningConfig,
    Way,
)
from tasks.costs import endpoint_cost, training_cost, tuning_cost
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
    tuning: TuningConfig = TuningConfig(),
    tune: bool = True,
    compute: Compute = Compute(),
    several: SeveralCompute = SeveralCompute(),
    ec2: Ec2Compute = Ec2Compute(),
    endpoint: EndpointCompute = EndpointCompute(),
    live: bool = True,
    front: FrontConfig = FrontConfig(),
    traffic: Traffic | None = None,
    keep_endpoints: bool = False,
    fresh: bool = False,
    reports_folder: str = "runs",
) -> RunReport:
    """Take a folder of labelled pictures to tuned, trained, deployed and measured models.

    Args:
        dataset: Which pictures.
        hyperparameters: What the training program is told; what suits the dataset when left out.
        tuning: How hyperparameters are searched.
        tune: Search hyperparameters; otherwise they are taken as they are.
        compute: The machine of each trial and of the training on a single instance.
        several: The machines of the training on several instances.
        ec2: The plain EC2 instance.
        endpoint: What each endpoint runs on.
        live: Put the best model into service, with the function in front.
        front: The function in front.
        traffic: What is expected of the live endpoint; from it follows its scaling. None: no scaling.
        keep_endpoints: Leave the endpoints in service, and billing.
        fresh: Do anew even what has been done before.
        reports_folder: Where the files of the report go.
    """
    settings = load_settings()
    upload = upload_dataset(dataset=dataset)
    manifest = upload.result.dataset.manifest_s3_uri
    chosen = hyperparameters_for(dataset, hyperparameters)
    search = None
    if tune:
        machine = compute.model_copy(update={"fallbacks": ()})  # all trials have the same
        search = tune_hyperparameters(manifest, tuning=tuning, hyperparameters=chosen, compute=machine, fresh=fresh)
        chosen = search.result.hyperparameters
    compared = compare_training(
        manifest,
        hyperparameters=chosen,
        compute=compute,
        several=several,
        ec2=ec2,
        endpoint=endpoint,
        keep_endpoints=keep_endpoints,
        fresh=fresh,
    )
    best = compared.result.best
    served = None
    if live:
        model = best.job.model_s3_uri
        served = go_live(model, manifest, compute=endpoint, front=front, traffic=traffic, keep=keep_endpoints)
    limits = (compute.max_runtime_seconds, several.max_runtime_seconds, ec2.max_runtime_seconds)
    costs = (
        *((tuning_cost(search.result, tuning, compute, settings.region),) if search else ()),
        *_training_costs(compared.result, dict(zip(WAYS, limits, strict=True)), settings.region),
        *_endpoint_costs(compared.result, served.result if served else None, settings.region),
    )
    accuracy = best.report.test.accuracy
    run = RunReport(
        folder=str(Path(reports_folder) / _folder_name()),
        title=f"{upload.result.dataset.name}: {accuracy:.2%} of the test pictures right",
        upload=upload.result,
        tuning=search.result if search else None,
        comparison=compared.result,
        live=served.result if served else None,
        costs=costs,
    )
    steps = (upload.sections, search.sections if search else (), compared.sections, served.sections if served else ())
    sections = (*(section for step in steps for section in step), report_costs(costs, settings.region))
    write_report(run, sections)
    return run


def _training_costs(comparison: Comparison, limits: dict[Way, int], region: str) -> tuple[CostLine, ...]:
    return tuple(training_cost(model, limits[model.way], region) for model in comparison.trainings)


def _endpoint_costs(comparison: Comparison, live: LiveResult | None, region: str) -> tuple[CostLine, ...]:
    now, gone = datetime.now(tz=UTC), {*comparison.deleted, *(live.deleted if live else ())}
    deployments = (*comparison.deployments, *((live.deployment,) if live else ()))
    return tuple(
        endpoint_cost(one.endpoint, region, now, kept=f"endpoint {one.endpoint.name}" not in gone)
        for one in deployments
    )


def hyperparameters_for(dataset: DatasetSpec, given: Hyperparameters | None) -> Hyperparameters:
    """Return what was given, over what suits the dataset: a small network for digits, a pretrained one for photographs.

    What was given is only what somebody wrote: `--hyperparameters.epochs 3` leaves the network to the dataset.
    """
    suited = Hyperparameters() if dataset.source == "digits" else PHOTO_HYPERPARAMETERS
    written = {name: getattr(given, name) for name in given.model_fields_set} if given else {}
    return Hyperparameters.model_validate(suited.model_dump() | written)


def show(run: RunReport) -> str:
    """Say what was made, how good it is, what it said, what it cost, what is gone, and where to look."""
    upload, comparison = run.upload, run.comparison
    gone = (*comparison.deleted, *(run.live.deleted if run.live else ()))
    return "\n".join(
        [
            f"\nDataset    {upload.dataset.manifest_s3_uri}",
            f"           {upload.dataset.total_files} pictures, {upload.files_sent} of them sent now",
            *(f"           warning: {warning}" for warning in upload.dataset.warnings),
            *_tuning_lines(run),
            *_training_lines(comparison),
            *(line for deployment in comparison.deployments for line in _endpoint_lines(deployment)),
            *(lines_of(run.live) if run.live else ()),
            "Cost on AWS",
            *(f"  {cost.step}: {usd(cost.billed_usd)} ({cost.machines}, {cost.note})" for cost in run.costs),
            "Torn down",
            *(f"  {name}" for name in gone or ("nothing: the endpoints are in service, and bill",)),
            f"Report     {run.folder}/report.html",
        ]
    )


def _tuning_lines(run: RunReport) -> Sequence[str]:
    tuning = run.tuning
    if tuning is None:
        return ()
    found = ", ".join(f"{name} {getattr(tuning.hyperparameters, name)}" for name in sorted(tuning.best.hyperparameters))
    best = f"{tuning.objective} {tuning.best.objective:.4g}"
    return (f"Tuning     {tuning.name} ({tuning.how})", f"           best of {len(tuning.trials)}: {found} ({best})")


def _training_lines(comparison: Comparison) -> Sequence[str]:
    lines = []
    for model, row in zip(comparison.trainings, comparison.rows, strict=True):
        accuracy = f"{row.test_accuracy:.2%} of {len(model.report.test.predictions)} test pictures right"
        speed = f"{row.training_seconds:.1f} s, {row.images_per_second:.0f} pictures/s, {usd(row.cost_usd)}"
        lines += [
            f"Training   {row.way}, {row.machines}: {row.job} ({row.how})",
            f"           {accuracy}, {speed}",
            f"           {model.job.model_s3_uri}",
        ]
    return lines


def _endpoint_lines(deployment: Deployment) -> Sequence[str]:
    answers = [
        f"           {one.image.name}: {one.answer.label} ({one.answer.probability:.1%}), true {one.image.label}"
        for one in deployment.answers
    ]
    return (f"Endpoint   {deployment.endpoint.name} ({deployment.endpoint.how})", *answers)


def _folder_name() -> str:
    """Return when and which run this is; a run's own name may be anything, a folder's may not."""
    return f"{datetime.now(tz=UTC):%Y%m%d-%H%M%S}-{str(flow_run.id)[:8]}"


if __name__ == "__main__":
    command_line.run(operationalize, show)

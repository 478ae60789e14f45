"""The whole journey: upload, tune, train three ways, deploy, compare, go live with the best, and take all down again.

make demo                                       on this machine, no account
python -m flows.operationalize                  against the AWS that the environment points at
python -m flows.operationalize --dataset.source ~/pictures --keep-endpoints
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from prefect import flow
from prefect.runtime import flow_run
from pydantic import Field

from flows import command_line
from flows.compare_training import compare_training
from flows.go_live import go_live, lines_of
from flows.tune_hyperparameters import tune_hyperparameters
from flows.upload_dataset import upload_dataset
from tasks.approvals import await_approval
from tasks.aws.settings import load_settings
from tasks.budgets import Budget
from tasks.cancellation import stop_what_it_started
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
    Gate,
    Hyperparameters,
    LiveResult,
    RunReport,
    SeveralCompute,
    Traffic,
    TuningConfig,
    Way,
    titled,
)
from tasks.costs import endpoint_cost, training_cost, trainings_at_most, tuning_at_most, tuning_cost
from tasks.markdown import usd
from tasks.reports import report_approval, report_costs, write_report
from tasks.results import kept_as_json

# What suits pictures of things: a network that has seen ImageNet, of which only the last layer is trained.
PHOTO_HYPERPARAMETERS = Hyperparameters(
    architecture="resnet50", weights="imagenet", trainable="head", image_size=224, learning_rate=0.001
)


@kept_as_json
@flow(
    name="operationalize",
    flow_run_name="operationalize {dataset.source}",
    on_cancellation=[stop_what_it_started],
)
def operationalize(
    *,
    dataset: Annotated[DatasetSpec, titled("Dataset")] = DatasetSpec(),
    hyperparameters: Annotated[Hyperparameters | None, titled("Hyperparameters")] = None,
    tuning: Annotated[TuningConfig, titled("Search")] = TuningConfig(),
    tune: Annotated[bool, titled("Search hyperparameters")] = True,
    compute: Annotated[Compute, titled("Single instance")] = Compute(),
    several: Annotated[SeveralCompute, titled("Several instances")] = SeveralCompute(),
    ec2: Annotated[Ec2Compute, titled("EC2 instance")] = Ec2Compute(),
    endpoint: Annotated[EndpointCompute, titled("Endpoints")] = EndpointCompute(),
    live: Annotated[bool, titled("Go live")] = True,
    front: Annotated[FrontConfig, titled("Function in front")] = FrontConfig(),
    traffic: Annotated[Traffic | None, titled("Expected traffic")] = None,
    gate: Annotated[Gate, titled("Approval")] = Gate(),
    budget_usd: Annotated[float | None, Field(gt=0), titled("Budget (dollars)")] = None,
    keep_endpoints: Annotated[bool, titled("Keep the endpoints")] = False,
    fresh: Annotated[bool, titled("Do all anew")] = False,
    reports_folder: Annotated[str, Field(min_length=1), titled("Folder of reports")] = "runs",
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
        gate: What the best model must be, and cost, to go live, and who decides when it is not.
        budget_usd: What tuning and trainings may cost together; each counts as its longest before it begins. None: any.
        keep_endpoints: Leave the endpoints in service, and billing.
        fresh: Do anew even what has been done before.
        reports_folder: Where the files of the report go.
    """
    settings, budget = load_settings(), Budget(budget_usd)
    trainings_usd = trainings_at_most((compute, several), ec2, settings.region)
    budget.check("trainings", trainings_usd)  # what cannot be paid for anyway is not begun
    if tune:
        budget.check("tuning", tuning_at_most(tuning, compute, settings.region))
    upload = upload_dataset(dataset=dataset)
    manifest = upload.result.dataset.manifest_s3_uri
    chosen = hyperparameters_for(dataset, hyperparameters)
    search = None
    if tune:
        machine = compute.model_copy(update={"fallbacks": ()})  # all trials have the same
        search = tune_hyperparameters(manifest, tuning=tuning, hyperparameters=chosen, compute=machine, fresh=fresh)
        chosen = search.result.hyperparameters
    tuning_costs = (tuning_cost(search.result, tuning, compute, settings.region),) if search else ()
    budget.spend(tuning_costs)
    budget.check("trainings", trainings_usd)
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
    limits = (compute.max_runtime_seconds, several.max_runtime_seconds, ec2.max_runtime_seconds)
    training_costs = _training_costs(compared.result, dict(zip(WAYS, limits, strict=True)), settings.region)
    budget.spend(training_costs)
    best = compared.result.best
    approval = await_approval(gate, best, endpoint, settings.region) if live else None
    served = None
    if approval and approval.granted:
        model = best.job.model_s3_uri
        served = go_live(model, manifest, compute=endpoint, front=front, traffic=traffic, keep=keep_endpoints)
    endpoint_costs = _endpoint_costs(compared.result, served.result if served else None, settings.region)
    costs = (*tuning_costs, *training_costs, *endpoint_costs)
    accuracy = best.report.test.accuracy
    run = RunReport(
        folder=str(Path(reports_folder) / _folder_name()),
        title=f"{upload.result.dataset.name}: {accuracy:.2%} of the test pictures right",
        upload=upload.result,
        tuning=search.result if search else None,
        comparison=compared.result,
        approval=approval,
        live=served.result if served else None,
        costs=costs,
    )
    steps = [step for step in (upload, search, compared, served) if step]
    sections = [section for step in steps for section in step.sections]
    if approval and approval.missed:
        sections.append(report_approval(approval))
    sections.append(report_costs(costs, settings.region))
    write_report(run, tuple(sections))
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
            *_approval_lines(run),
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


def _approval_lines(run: RunReport) -> Sequence[str]:
    approval = run.approval
    if approval is None or not approval.missed:
        return ()
    outcome = "goes into service" if approval.granted else "is not put into service"
    note = [f"           {approval.note}"] if approval.note else []
    reasons = (f"           {reason}" for reason in approval.missed)
    return (f"Approval   the model {outcome}, decided by {approval.decided_by}", *reasons, *note)


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

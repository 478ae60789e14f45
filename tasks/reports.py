"""What a run leaves for people: an artifact per step, and the whole as files under runs/."""

import json
from collections.abc import Sequence
from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact

from tasks import charts
from tasks.aws.prices import prices_as_of
from tasks.contracts import (
    SPLITS,
    CostLine,
    Deployment,
    LabelledImage,
    RunReport,
    Section,
    TrainedModel,
    TrainingReport,
    UploadResult,
)
from tasks.markdown import escape, machines, picture, table, to_page, usd

_WORST_CONFUSIONS = 5


@task
def report_dataset(upload: UploadResult, samples: tuple[LabelledImage, ...]) -> Section:
    """Show the dataset: counts, warnings, some of its pictures, the balance of its classes."""
    dataset = upload.dataset
    rows = [[split, sum(dataset.counts[split].values()), dataset.channels[split].s3_uri] for split in SPLITS]
    there = dataset.total_files - upload.files_sent
    sent = f"{upload.files_sent} sent now, {there} were there" if there else "all sent now"
    summary = (
        f"**{escape(dataset.name)}**: {dataset.total_files} pictures of {len(dataset.classes)} classes, "
        f"{dataset.total_bytes / 1e6:.1f} MB; {sent}."
    )
    parts = [
        summary,
        table(["split", "pictures", "channel"], rows),
        *(f"- ⚠ {escape(warning)}" for warning in dataset.warnings),
        picture("some of its pictures", charts.sample_sheet(samples)) if samples else "",
        picture("pictures per class", charts.class_balance(dataset.counts, dataset.classes)),
        f"Manifest: `{dataset.manifest_s3_uri}`",
    ]
    return _publish("dataset", "Dataset", parts)


@task
def report_training(model: TrainedModel) -> Section:
    """Show a training: accuracy, curves, confusion matrix, where its time went."""
    result, report = model.job, model.report
    test, kept = report.test, report.epochs[report.best_epoch - 1]
    facts = [
        ["test accuracy", f"{test.accuracy:.2%} of {len(test.predictions)} pictures"],
        ["validation accuracy", f"{kept.valid_accuracy:.2%} (epoch {report.best_epoch} of {len(report.epochs)})"],
        ["speed", f"{report.images_per_second:.0f} pictures a second"],
        ["machines", machines(result.instance_type, result.instance_count)],
        ["seconds", ", ".join(f"{name.lower()} {took:.1f}" for name, took in result.phase_seconds.items() if took)],
        ["job", f"{result.name} ({result.how})"],
        ["model", result.model_s3_uri],
    ]
    parts = [
        table(["training", ""], facts),
        picture("curves", charts.training_curves(report.epochs, report.best_epoch)),
        picture("confusion matrix", charts.confusion_matrix(test.confusion, report.classes)),
        _worst_confusions(report),
    ]
    return _publish("training", "Training", parts)


@task
def report_endpoint(deployment: Deployment) -> Section:
    """Show an endpoint: what it is, and what it says of some test pictures."""
    endpoint, samples = deployment.endpoint, deployment.answers
    hourly = "unknown" if endpoint.hourly_usd is None else f"${endpoint.hourly_usd:.3f} an hour"
    parts = [
        table(
            ["endpoint", f"{endpoint.name} ({endpoint.how})"],
            [
                ["machines", f"{machines(endpoint.instance_type, endpoint.instance_count)}, {hourly}"],
                ["in service after", f"{endpoint.seconds_to_in_service:.1f} s"],
            ],
        ),
    ]
    if samples:
        rows = [
            [s.image.name, s.image.label, s.answer.label, f"{s.answer.probability:.1%}", f"{s.answer.milliseconds:.0f}"]
            for s in samples
        ]
        parts.append(picture("answers", charts.answer_sheet(samples)))
        parts.append(table(["picture", "true", "answer", "probability", "ms"], rows))
    return _publish("endpoint", "Endpoint", parts)


@task
def report_costs(costs: tuple[CostLine, ...], region: str) -> Section:
    """Show what the run costs on AWS, estimated before and billed after."""
    rows = [
        [
            cost.step,
            cost.machines,
            f"{cost.billable_seconds:.0f}",
            usd(cost.at_most_usd),
            usd(cost.billed_usd),
            cost.note,
        ]
        for cost in costs
    ]
    known = [cost.billed_usd for cost in costs if cost.billed_usd is not None]
    total = (
        f"**Together {usd(sum(known))}** for machines, at AWS's list prices in {region} "
        f"(as of {prices_as_of(region) or 'unknown'}); storage, requests and traffic are not counted."
    )
    header = ["step", "machines", "billable s", "at most", "billed", ""]
    return _publish("costs", "Costs", [table(header, rows), total])


@task
def write_report(run: RunReport, sections: tuple[Section, ...]) -> str:
    """Write report.json and report.html of a whole run, publish it as an artifact, and return the page's path.

    Safe to retry: the files are replaced.
    """
    parts = [f"## {part.title}\n\n{part.markdown}" for part in sections]
    text = "\n\n".join([f"# {escape(run.title)}", *parts, _after(run)])
    place = Path(run.folder)
    place.mkdir(parents=True, exist_ok=True)
    facts = run.model_dump(mode="json", exclude={"deployment": {"answers": {"__all__": {"image": {"body"}}}}})
    (place / "report.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    page = place / "report.html"
    page.write_text(to_page(run.title, text), encoding="utf-8")
    create_markdown_artifact(text, key="final-report", description=run.title)
    return str(page)


def _publish(key: str, title: str, parts: Sequence[str]) -> Section:
    markdown = "\n\n".join(part for part in parts if part)
    create_markdown_artifact(f"## {title}\n\n{markdown}", key=key, description=title)
    return Section(key=key, title=title, markdown=markdown)


def _after(run: RunReport) -> str:
    """Return what is left in service, and what is gone."""
    if run.teardown is None:
        return f"## In service\n\n{run.deployment.endpoint.name} is in service, and bills until it is torn down."
    return "\n".join(["## Torn down\n", *(f"- {escape(name)}" for name in run.teardown.deleted)])


def _worst_confusions(report: TrainingReport) -> str:
    pairs = [
        (count, report.classes[i], report.classes[j])
        for i, row in enumerate(report.test.confusion)
        for j, count in enumerate(row)
        if i != j and count
    ]
    worst = sorted(pairs, key=lambda pair: -pair[0])[:_WORST_CONFUSIONS]
    return table(["times", "true", "taken for"], worst) if worst else "No test picture was taken for another."

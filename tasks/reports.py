"""What a run leaves for people: an artifact per step, and the whole as files under runs/."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact

from tasks import charts
from tasks.aws.prices import prices_as_of
from tasks.contracts import (
    SPLITS,
    ComparedTraining,
    CostLine,
    Deployment,
    FrontResult,
    HealthCheck,
    LabelledImage,
    ReapResult,
    RunReport,
    SampleAnswer,
    ScalingRecommendation,
    ScalingResult,
    Section,
    TrainedModel,
    TrainingReport,
    TuningResult,
    UploadResult,
    Way,
)
from tasks.markdown import escape, machines, picture, short_number, table, to_page, usd
from tasks.recommendations import held_level

_WORST_CONFUSIONS = 5
_WRONG_SHOWN = 8


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
def report_tuning(tuning: TuningResult) -> Section:
    """Show a tuning: every trial, the objective against what was searched, the best so far over time."""
    metric, best = tuning.objective, tuning.best
    found = ", ".join(f"{name} {short_number(value)}" for name, value in sorted(best.hyperparameters.items()))
    names = sorted({name for trial in tuning.trials for name in trial.hyperparameters})
    rows = [
        [
            f"{'★ ' if trial.name == best.name else ''}{trial.name.removeprefix(tuning.name + '-')}",
            trial.status if not trial.reason else f"{trial.status}: {trial.reason}",
            "" if trial.objective is None else f"{trial.objective:.6g}",
            *(short_number(trial.hyperparameters.get(name, "")) for name in names),
            f"{trial.seconds:.0f}",
            usd(trial.cost_usd),
        ]
        for trial in tuning.trials
    ]
    parts = [
        f"**{escape(found)}**, found by {tuning.strategy} search over {len(tuning.trials)} trials on validation.",
        table(["trial", "state", metric, *names, "seconds", "cost"], rows),
        picture("trials", charts.tuning_trials(tuning.trials, best, metric)),
        f"{escape(tuning.name)} ({tuning.how}): {escape(tuning.ended_because)}; {usd(tuning.cost_usd)} together.",
    ]
    return _publish("tuning", "Tuning", parts)


@task
def report_training(model: TrainedModel) -> Section:
    """Show a training: accuracy, curves, confusion matrix, where its time went."""
    result, report = model.job, model.report
    test, kept = report.test, report.best
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
    return _publish(f"training-{_slug(model.way)}", f"Training: {model.way}", parts)


@task
def report_endpoint(deployment: Deployment) -> Section:
    """Show an endpoint: what it is, and what it says of some test pictures."""
    endpoint, samples = deployment.endpoint, deployment.answers
    hourly = "unknown" if endpoint.hourly_usd is None else f"${endpoint.hourly_usd:.3f} an hour"
    parts = [
        table(
            ["endpoint", f"{endpoint.name} ({endpoint.how})"],
            [
                ["machines", f"{endpoint.compute.machines}, {hourly}"],
                ["in service after", f"{endpoint.seconds_to_in_service:.1f} s"],
            ],
        ),
    ]
    parts += _answers(samples)
    return _publish("endpoint", f"Endpoint {endpoint.name}", parts)


@task
def report_health(check: HealthCheck, answers: tuple[SampleAnswer, ...]) -> Section:
    """Show an endpoint as it is now beside what it was, and what it got wrong."""
    now, then = check.now, check.then
    wrong = [one for one in answers if one.answer.label != one.image.label][:_WRONG_SHOWN]
    rows = [
        ["right", f"{now.accuracy:.1%} of {now.pictures}", f"{then.accuracy:.1%} of {then.pictures}"],
        ["median", f"{now.p50_ms:.0f} ms", f"{then.p50_ms:.0f} ms"],
    ]
    parts = [table([check.endpoint, "now", "at its deployment"], rows), *_answers(wrong)]
    return _publish("endpoint-health", f"Health of {check.endpoint}", parts)


@task
def report_front(front: FrontResult) -> Section:
    """Show a function in front: where it is, and what it says of some test pictures."""
    before = f", before {front.previous_version}" if front.previous_version else ""
    facts = [
        ["version", f"{front.version}{before}"],
        ["alias", front.arn],
        ["URL, signed requests only", front.url],
    ]
    parts = [table(["function", f"{front.name} ({front.how})"], facts), *_answers(front.answers)]
    return _publish("front", "Front", parts)


@task
def report_scaling(result: ScalingResult) -> Section:
    """Show how an endpoint is scaled, and when instances were added or removed."""
    scaling = result.scaling
    most = "unknown" if result.most_hourly_usd is None else f"${result.most_hourly_usd:.3f}"
    facts = [
        ["instances", f"{scaling.min_instances} to {scaling.max_instances}, {result.instances} now"],
        ["at most", f"{most} an hour"],
        ["target", f"{scaling.target:g} invocations per instance and minute"],
        ["cooldown", f"{scaling.scale_out_cooldown_seconds} s out, {scaling.scale_in_cooldown_seconds} s in"],
        *([f"schedule {one.name}", f"{one.schedule} {one.timezone}"] for one in scaling.schedule),
        ["alarms", ", ".join(result.alarms)],
    ]
    rows = [[f"{one.at:%Y-%m-%d %H:%M:%S}", one.description, one.cause, one.status] for one in result.activities]
    drawn = any(one.instances is not None for one in result.activities)
    parts = [
        table(["scaling", f"{result.endpoint} ({result.how})"], facts),
        table(["when", "what", "why", ""], rows) if rows else "No instance has been added or removed yet.",
        picture("scaling", charts.scaling_timeline(result.load, result.activities, scaling.target)) if drawn else "",
    ]
    return _publish("scaling", "Scaling", parts)


@task
def report_recommendation(recommendation: ScalingRecommendation, p99_ms: float) -> Section:
    """Show a recommendation: what was measured, and what follows from it."""
    held = held_level(recommendation.levels, p99_ms)
    rows = [
        [
            f"{'★ ' if level == held else ''}{level.callers}",
            level.requests,
            level.errors,
            f"{level.requests_per_second:.1f}",
            *(f"{milliseconds:.0f}" for milliseconds in (level.mean_ms, level.p50_ms, level.p99_ms)),
        ]
        for level in recommendation.levels
    ]
    parts = [
        table(["callers", "requests", "failed", "requests/s", "mean ms", "p50 ms", "p99 ms"], rows),
        picture("load", charts.load_levels(recommendation.levels, held, p99_ms)),
        "\n".join(f"- {escape(sentence)}" for sentence in recommendation.reasoning),
    ]
    return _publish("scaling-recommendation", f"Scaling of {recommendation.endpoint}", parts)


@task
def report_comparison(rows: tuple[ComparedTraining, ...]) -> Section:
    """Show the ways of training side by side: where the time went, what it cost, how good the model is."""
    header = [
        "way",
        "machines",
        "start-up s",
        "download s",
        "training s",
        "upload s",
        "pictures/s",
        "billable s",
        "cost",
        "validation",
        "test",
    ]
    cells = [
        [
            row.way,
            row.machines,
            f"{row.start_up_seconds:.1f}",
            f"{row.download_seconds:.1f}",
            f"{row.training_seconds:.1f}",
            f"{row.upload_seconds:.1f}",
            f"{row.images_per_second:.0f}",
            f"{row.billable_seconds:.0f}",
            usd(row.cost_usd),
            f"{row.valid_accuracy:.2%}",
            f"{row.test_accuracy:.2%}",
        ]
        for row in rows
    ]
    parts = [
        "The same data, hyperparameters and seed.",
        table(header, cells),
        picture("seconds", charts.training_seconds(rows)),
        *(f"- **{row.way}** ({escape(row.job)}, {row.how}): {escape(row.code_path)}" for row in rows),
    ]
    return _publish("comparison", "Comparison", parts)


@task
def report_orphans(result: ReapResult) -> Section:
    """Show what billed though nobody waited for it, and what became of it."""
    rows = [
        [
            one.billing.kind,
            one.billing.name,
            one.reason,
            "unknown" if one.billing.hourly_usd is None else f"${one.billing.hourly_usd:.3f}",
            usd(one.saved_usd),
            one.trouble or ("ended" if one.reaped else "left: only looked at"),
        ]
        for one in result.orphans
    ]
    if not rows:
        return _publish("orphans", "Orphans", ["Nothing bills that nobody waits for."])
    header = ["what", "name", "why", "an hour", "saves", ""]
    counted = "Counted until each would have ended by itself; of what never does, a day."
    return _publish("orphans", "Orphans", [f"**{usd(result.saved_usd)} saved.** {counted}", table(header, rows)])


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
    answers: dict[str, Any] = {"answers": {"__all__": {"image": {"body"}}}}
    pictures = {"comparison": {"deployments": {"__all__": answers}}, "live": {"deployment": answers, "front": answers}}
    facts = run.model_dump(mode="json", exclude=pictures)
    (place / "report.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    page = place / "report.html"
    page.write_text(to_page(run.title, text), encoding="utf-8")
    create_markdown_artifact(text, key="final-report", description=run.title)
    return str(page)


def _publish(key: str, title: str, parts: Sequence[str]) -> Section:
    markdown = "\n\n".join(part for part in parts if part)
    create_markdown_artifact(f"## {title}\n\n{markdown}", key=key, description=title)
    return Section(key=key, title=title, markdown=markdown)


def _answers(samples: Sequence[SampleAnswer]) -> list[str]:
    """Return pictures with what was said of each, and the same as a table."""
    if not samples:
        return []
    rows = [
        [s.image.name, s.image.label, s.answer.label, f"{s.answer.probability:.1%}", f"{s.answer.milliseconds:.0f}"]
        for s in samples
    ]
    header = ["picture", "true", "answer", "probability", "ms"]
    return [picture("answers", charts.answer_sheet(samples)), table(header, rows)]


def _slug(way: Way) -> str:
    return way.lower().replace(" ", "-")


def _after(run: RunReport) -> str:
    """Return what is gone, and what is left in service."""
    deployments = (*run.comparison.deployments, *((run.live.deployment,) if run.live else ()))
    gone = (*run.comparison.deleted, *(run.live.deleted if run.live else ()))
    left = [one.endpoint.name for one in deployments if f"endpoint {one.endpoint.name}" not in gone]
    parts = []
    if gone:
        parts += ["## Torn down\n", *(f"- {escape(name)}" for name in gone)]
    if left:
        parts += ["\n## In service, and billing until torn down\n", *(f"- {name}" for name in left)]
    return "\n".join(parts)


def _worst_confusions(report: TrainingReport) -> str:
    pairs = [
        (count, report.classes[i], report.classes[j])
        for i, row in enumerate(report.test.confusion)
        for j, count in enumerate(row)
        if i != j and count
    ]
    worst = sorted(pairs, key=lambda pair: -pair[0])[:_WORST_CONFUSIONS]
    return table(["times", "true", "taken for"], worst) if worst else "No test picture was taken for another."

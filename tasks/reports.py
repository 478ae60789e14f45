"""What a run leaves for people: an artifact per step, and the whole as files under runs/."""

from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from prefect import task
from prefect.artifacts import create_markdown_artifact

from tasks import charts
from tasks.aws.console_links import Console, Page, page_of, region_of
from tasks.aws.prices import prices_as_of
from tasks.aws.settings import console_address
from tasks.confusions import worst_confusions
from tasks.contracts import (
    SPLITS,
    Approval,
    Billing,
    BillingKind,
    Channel,
    ComparedTraining,
    CostLine,
    Deployment,
    FrontResult,
    HealthCheck,
    LabelledImage,
    PredictedImage,
    PriceRefresh,
    ReapResult,
    RunReport,
    SampleAnswer,
    ScalingRecommendation,
    ScalingResult,
    Section,
    TrainedModel,
    TrainingReport,
    TrainingResult,
    TuningResult,
    UploadResult,
    Way,
)
from tasks.loads import percentile
from tasks.markdown import Marked, escape, link, machines, picture, short_number, table, to_page, usd
from tasks.recommendations import held_level
from tasks.results import restored

_WORST_CONFUSIONS = 5
_WRONG_SHOWN = 8


@task(task_run_name="report the dataset", persist_result=False)
def report_dataset(upload: UploadResult, samples: tuple[LabelledImage, ...], region: str) -> Section:
    """Show the dataset: counts, warnings, some of its pictures, the balance of its classes."""
    dataset, console = upload.dataset, _console(region)
    rows = [
        [split, sum(dataset.counts[split].values()), _channel(dataset.channels[split], console)] for split in SPLITS
    ]
    there = dataset.total_files - upload.files_sent
    sent = f"{upload.files_sent} sent now, {there} were there" if there else "all sent now"
    summary = (
        f"**{escape(dataset.name)}**: {dataset.total_files} pictures of {len(dataset.classes)} classes, "
        f"{dataset.total_bytes / 1e6:.1f} MB; {sent}."
    )
    parts = [
        summary,
        table(["split", "pictures", "files"], rows),
        *(f"- ⚠ {escape(warning)}" for warning in dataset.warnings),
        picture("some of its pictures", charts.sample_sheet(samples)) if samples else "",
        picture("pictures per class", charts.class_balance(dataset.counts, dataset.classes)),
        f"Manifest: {_object(dataset.manifest_s3_uri, console)}",
    ]
    return _publish("dataset", "Dataset", parts)


@task(task_run_name="report the tuning", persist_result=False)
def report_tuning(tuning: TuningResult) -> Section:
    """Show a tuning: every trial, the objective against what was searched, the best so far over time."""
    metric, best, console = tuning.objective, tuning.best, _console(region_of(tuning.arn))
    found = ", ".join(f"{name} {short_number(value)}" for name, value in sorted(best.hyperparameters.items()))
    names = sorted({name for trial in tuning.trials for name in trial.hyperparameters})
    rows = [
        [
            _trial(trial.name, tuning, console),
            trial.status if not trial.reason else f"{trial.status}: {trial.reason}",
            "" if trial.objective is None else f"{trial.objective:.6g}",
            *(short_number(trial.hyperparameters.get(name, "")) for name in names),
            f"{trial.seconds:.0f}",
            usd(trial.cost_usd),
        ]
        for trial in tuning.trials
    ]
    job = _named("tuning job", tuning.name, tuning.how, console)
    parts = [
        f"**{escape(found)}**, found by {tuning.strategy} search over {len(tuning.trials)} trials on validation.",
        table(["trial", "state", metric, *names, "seconds", "cost"], rows),
        picture("trials", charts.tuning_trials(tuning.trials, best, metric)),
        f"{job}: {escape(tuning.ended_because)}; {usd(tuning.cost_usd)} together.",
    ]
    return _publish("tuning", "Tuning", parts)


@task(task_run_name="report the training", persist_result=False)
def report_training(model: TrainedModel, pictures: tuple[PredictedImage, ...]) -> Section:
    """Show a training: accuracy, curves, confusion matrix with pictures, where its time went."""
    result, report = model.job, model.report
    test, kept, console = report.test, report.best, _console(region_of(result.arn))
    facts = [
        ["test accuracy", f"{test.accuracy:.2%} of {len(test.predictions)} pictures"],
        ["validation accuracy", f"{kept.valid_accuracy:.2%} (epoch {report.best_epoch} of {len(report.epochs)})"],
        ["speed", f"{report.images_per_second:.0f} pictures a second"],
        ["machines", machines(result.instance_type, result.instance_count)],
        ["seconds", ", ".join(f"{name.lower()} {took:.1f}" for name, took in result.phase_seconds.items() if took)],
        ["job", _job(result, console)],
    ]
    parts = [
        table(["training", ""], facts),
        picture("curves", charts.training_curves(report.epochs, report.best_epoch)),
        picture("confusion matrix", charts.confusion_matrix(test.confusion, report.classes)),
        *_looked_at(report, pictures),
        f"Model: {_object(result.model_s3_uri, console)}",
    ]
    return _publish(f"training-{_slug(model.way)}", f"Training: {model.way}", parts)


@task(task_run_name="report the endpoint", persist_result=False)
def report_endpoint(deployment: Deployment) -> Section:
    """Show an endpoint: what it is, how good and quick it is, and what it says of some test pictures."""
    endpoint, console = deployment.endpoint, _console(region_of(deployment.endpoint.arn))
    hourly = "unknown" if endpoint.hourly_usd is None else f"${endpoint.hourly_usd:.3f} an hour"
    facts = [
        ["machines", f"{endpoint.compute.machines}, {hourly}"],
        ["in service after", f"{endpoint.seconds_to_in_service:.1f} s"],
        ["log", link("its lines", console.page("endpoint log", endpoint.name))],
    ]
    parts = [
        table(["endpoint", _named("endpoint", endpoint.name, endpoint.how, console)], facts),
        *_measured(deployment),
        *_answers(deployment.answers),
    ]
    return _publish("endpoint", f"Endpoint {endpoint.name}", parts)


@task(task_run_name="report the health", persist_result=False)
def report_health(check: HealthCheck, answers: tuple[SampleAnswer, ...], region: str) -> Section:
    """Show an endpoint as it is now beside what it was, and what it got wrong."""
    now, then = check.now, check.then
    wrong = [one for one in answers if one.answer.label != one.image.label][:_WRONG_SHOWN]
    rows = [
        ["right", f"{now.accuracy:.1%} of {now.pictures}", f"{then.accuracy:.1%} of {then.pictures}"],
        ["median", f"{now.p50_ms:.0f} ms", f"{then.p50_ms:.0f} ms"],
    ]
    name = link(check.endpoint, _console(region).page("endpoint", check.endpoint))
    parts = [table([name, "now", "at its deployment"], rows), *_answers(wrong)]
    return _publish("endpoint-health", f"Health of {check.endpoint}", parts)


@task(task_run_name="report the function in front", persist_result=False)
def report_front(front: FrontResult) -> Section:
    """Show a function in front: where it is, and what it says of some test pictures."""
    before = f", before {front.previous_version}" if front.previous_version else ""
    console = _console(region_of(front.arn))
    facts = [
        ["version", f"{front.version}{before}"],
        ["alias", front.arn],
        ["URL, signed requests only", front.url],
        ["log", link("its lines", console.page("function log", front.name))],
    ]
    parts = [table(["function", _named("function", front.name, front.how, console)], facts), *_answers(front.answers)]
    return _publish("front", "Front", parts)


@task(task_run_name="report the scaling", persist_result=False)
def report_scaling(result: ScalingResult, region: str) -> Section:
    """Show how an endpoint is scaled, and when instances were added or removed."""
    scaling = result.scaling
    most = "unknown" if result.most_hourly_usd is None else f"${result.most_hourly_usd:.3f}"
    facts = [
        ["instances", f"{scaling.min_instances} to {scaling.max_instances}, {result.instances} now"],
        ["at most", f"{most} an hour"],
        ["target", f"{scaling.target:g} invocations per instance and minute"],
        ["cooldown", f"{scaling.scale_out_cooldown_seconds} s out, {scaling.scale_in_cooldown_seconds} s in"],
        *([f"schedule {one.name}", f"{one.schedule} {one.timezone}"] for one in scaling.schedule),
    ]
    # What Prefect's page cuts off is last.
    rows = [[f"{one.at:%Y-%m-%d %H:%M:%S}", one.description, one.status, one.cause] for one in result.activities]
    drawn = any(one.instances is not None for one in result.activities)
    parts = [
        table(["scaling", _named("endpoint", result.endpoint, result.how, _console(region))], facts),
        f"Alarms of CloudWatch watch it: {', '.join(result.alarms)}.",  # too long for a table
        table(["when", "what", "", "why"], rows) if rows else "No instance has been added or removed yet.",
        picture("scaling", charts.scaling_timeline(result.load, result.activities, scaling.target)) if drawn else "",
    ]
    return _publish("scaling", "Scaling", parts)


@task(task_run_name="report the recommendation", persist_result=False)
def report_recommendation(recommendation: ScalingRecommendation, p99_ms: float, region: str) -> Section:
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
    endpoint = link(recommendation.endpoint, _console(region).page("endpoint", recommendation.endpoint))
    parts = [
        f"What {endpoint} held, on one {recommendation.instance_type}:",
        table(["callers", "requests", "failed", "requests/s", "mean ms", "p50 ms", "p99 ms"], rows),
        picture("load", charts.load_levels(recommendation.levels, held, p99_ms)),
        "\n".join(f"- {escape(sentence)}" for sentence in recommendation.reasoning),
    ]
    return _publish("scaling-recommendation", f"Scaling of {recommendation.endpoint}", parts)


@task(task_run_name="report the comparison", persist_result=False)
def report_comparison(rows: tuple[ComparedTraining, ...]) -> Section:
    """Show the ways of training side by side: where the time went, what it cost, how good the model is."""
    measures = {
        "machines": [row.machines for row in rows],
        "start-up": [f"{row.start_up_seconds:.1f} s" for row in rows],
        "download": [f"{row.download_seconds:.1f} s" for row in rows],
        "training": [f"{row.training_seconds:.1f} s" for row in rows],
        "upload": [f"{row.upload_seconds:.1f} s" for row in rows],
        "speed": [f"{row.images_per_second:.0f} pictures/s" for row in rows],
        "billable": [f"{row.billable_seconds:.0f} s" for row in rows],
        "cost": [usd(row.cost_usd) for row in rows],
        "validation accuracy": [f"{row.valid_accuracy:.2%}" for row in rows],
        "test accuracy": [f"{row.test_accuracy:.2%}" for row in rows],
    }
    parts = [
        "The same data, hyperparameters and seed.",
        table(["", *(row.way for row in rows)], [[name, *values] for name, values in measures.items()]),
        picture("seconds", charts.training_seconds(rows)),
        *(f"- **{row.way}** ({escape(row.job)}, {row.how}): {escape(row.code_path)}" for row in rows),
    ]
    return _publish("comparison", "Comparison", parts)


@task(task_run_name="report the orphans", persist_result=False)
def report_orphans(result: ReapResult, region: str) -> Section:
    """Show what billed though nobody waited for it, and what became of it."""
    console = _console(region)
    rows = [
        [
            one.billing.kind,
            _billing(one.billing, console),
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


@task(task_run_name="report the prices", persist_result=False)
def report_prices(refresh: PriceRefresh) -> Section:
    """Show which prices are others now, and how many there are."""
    rows = [
        [one.kind, one.name, f"${one.old_usd:g}", f"${one.new_usd:g}", f"{one.percent:+.1f}%"]
        for one in refresh.changes
    ]
    before = f" as of {refresh.before}" if refresh.before else ""
    summary = (
        f"**{refresh.listed} prices** of {refresh.region} as of {refresh.as_of}, held against those in use{before}: "
        f"{len(rows)} changed, {refresh.added} new, {len(refresh.gone)} gone."
    )
    parts = [
        summary,
        table(["for", "name", "before", "now", ""], rows) if rows else "No price has changed.",
        *(["Not listed any more: " + escape(", ".join(refresh.gone)) + "."] if refresh.gone else []),
    ]
    return _publish("prices", "Prices", parts)


@task(task_run_name="report the approval", persist_result=False)
def report_approval(approval: Approval) -> Section:
    """Show why a model had to be decided about, who has, and how."""
    outcome = "goes into service" if approval.granted else "is not put into service"
    parts = [
        f"**The model {outcome}**, decided by {approval.decided_by}.",
        "\n".join(f"- {escape(reason)}" for reason in approval.missed),
        f"> {escape(approval.note)}" if approval.note else "",
    ]
    return _publish("approval", "Approval", parts)


@task(task_run_name="report the costs", persist_result=False)
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


@task(task_run_name="write the report", persist_result=False)
def write_report(run: RunReport, sections: tuple[Section, ...]) -> str:
    """Write report.json and report.html of a whole run, publish it as an artifact, and return the page's path.

    Safe to retry: the files are replaced.
    """
    parts = [f"## {part.title}\n\n{part.markdown}" for part in restored(sections)]
    text = "\n\n".join([f"# {escape(run.title)}", *parts, _after(run)])
    place = Path(run.folder)
    place.mkdir(parents=True, exist_ok=True)
    (place / "report.json").write_text(run.model_dump_json(indent=2) + "\n", encoding="utf-8")
    page = place / "report.html"
    page.write_text(to_page(run.title, text), encoding="utf-8")
    create_markdown_artifact(text, key="final-report", description=run.title)
    return str(page)


def _publish(key: str, title: str, parts: Sequence[str]) -> Section:
    markdown = "\n\n".join(part for part in parts if part)
    made = create_markdown_artifact(f"## {title}\n\n{markdown}", key=key, description=title)
    # Prefect's sync and async faces share one name; called from a sync task this is the UUID.
    return Section(key=key, title=title, markdown=markdown, artifact_id=made if isinstance(made, UUID) else None)


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


def _measured(deployment: Deployment) -> list[str]:
    """Return how good and how quick an endpoint was, of all that it was asked about."""
    health, took = deployment.health, deployment.milliseconds
    if health is None:
        return []
    p99_ms = percentile(sorted(took), 99)
    right = f"**{health.accuracy:.1%} right** of {health.pictures} test pictures, asked one after the other"
    return [
        f"{right}; an answer took {health.p50_ms:.0f} ms in the median, {p99_ms:.0f} ms at the 99th percentile.",
        picture("latency", charts.latency_histogram(took, health.p50_ms, p99_ms)),
    ]


def _console(region: str) -> Console:
    return Console(region, console_address())


def _named(page: Page, name: str, how: str, console: Console) -> Marked:
    """Return a resource as a link, and how we came by it."""
    return Marked(f"{link(name, console.page(page, name))} ({how})")


def _object(s3_uri: str, console: Console) -> Marked:
    return link(s3_uri, console.object(s3_uri))


def _channel(channel: Channel, console: Console) -> str:
    """Return where a channel is, as a link to its manifest: a prefix is no object, and has no page."""
    if channel.data_type == "S3Prefix":
        return channel.s3_uri
    return link(channel.s3_uri.rpartition("/")[2], console.object(channel.s3_uri))


def _trial(name: str, tuning: TuningResult, console: Console) -> Marked:
    star = "★ " if name == tuning.best.name else ""
    number = name.removeprefix(f"{tuning.name}-").partition("-")[0]
    return Marked(star + link(number, console.page("training job", name)))


def _job(result: TrainingResult, console: Console) -> Marked:
    """Return a training as links: the job and its log, or the instance that it ran on."""
    page, name = page_of(result.arn)
    if page == "training job":
        log = link("log", console.page("training log", name))
        return Marked(f"{_named(page, name, result.how, console)}, {log}")
    return Marked(f"{escape(result.name)} ({result.how}), on {link(name, console.page(page, name))}")


def _billing(billing: Billing, console: Console) -> str:
    """Return what bills, as a link where it has a page of its own."""
    pages: dict[BillingKind, Page] = {
        "training job": "training job",
        "tuning job": "tuning job",
        "endpoint": "endpoint",
        "instance": "instance",
    }
    page = pages.get(billing.kind)
    return link(billing.name, console.page(page, billing.name)) if page else billing.name


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


def _looked_at(report: TrainingReport, pictures: Sequence[PredictedImage]) -> list[str]:
    """Return the worst confusions, and some of the pictures; of a model that confused none its least sure answers."""
    worst = worst_confusions(report)[:_WORST_CONFUSIONS]
    title = "worst confusions" if worst else "right, but least sure"
    caption = f"Test pictures, {title}; above each what it was taken for, how surely, and what it is:"
    return [
        table(["times", "true", "taken for"], worst) if worst else "No test picture was taken for another.",
        caption if pictures else "",
        picture(title, charts.prediction_sheet(pictures)) if pictures else "",
    ]

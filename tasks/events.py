"""What others may react to: events of this project on the Prefect server, each about one thing that it made or found.

deployments/automations.py has reactions to two of them; `prefect event stream` shows them all.
"""

from collections.abc import Iterable, Mapping

from prefect.events import emit_event
from prefect.runtime import flow_run

from tasks.aws.identity import PROJECT
from tasks.contracts import Approval, CostLine, DatasetSpec, Deployment, HealthCheck, Orphan, TrainedModel, UploadResult
from tasks.runs import in_run

DATASET_UPLOADED = f"{PROJECT}.dataset.uploaded"
MODEL_TRAINED = f"{PROJECT}.model.trained"
MODEL_REFUSED = f"{PROJECT}.model.refused"
ENDPOINT_DEPLOYED = f"{PROJECT}.endpoint.deployed"
ENDPOINT_DRIFTED = f"{PROJECT}.endpoint.drifted"
ORPHAN_REAPED = f"{PROJECT}.orphan.reaped"
BUDGET_NEAR = f"{PROJECT}.budget.near"
# Of every event's resource: the flow run is "alone", or "part" of a larger one, which has its own plans.
RUN_LABEL = f"{PROJECT}.run"


def tell_uploaded(upload: UploadResult, spec: DatasetSpec) -> None:
    """Tell of a version of a dataset that was not there before."""
    if upload.is_new:
        payload = {"dataset": spec.model_dump(mode="json"), "manifest_s3_uri": upload.dataset.manifest_s3_uri}
        _tell(DATASET_UPLOADED, "dataset", upload.dataset.name, {**payload, "digest": upload.dataset.digest})


def tell_trained(model: TrainedModel) -> None:
    """Tell of a model that was not there before."""
    job, report = model.job, model.report
    if job.how != "reused":
        accuracy = {"valid_accuracy": report.best.valid_accuracy, "test_accuracy": report.test.accuracy}
        made = {"model_s3_uri": job.model_s3_uri, "way": model.way, "cost_usd": job.cost_usd}
        _tell(MODEL_TRAINED, "training", job.name, {**made, **accuracy})


def tell_refused(approval: Approval, model: TrainedModel) -> None:
    """Tell of a model that is not put into service."""
    if not approval.granted:
        payload = {"model_s3_uri": model.job.model_s3_uri, **approval.model_dump(mode="json")}
        _tell(MODEL_REFUSED, "training", model.job.name, payload)


def tell_deployed(deployment: Deployment) -> None:
    """Tell of an endpoint that is new in service, or has a new model."""
    endpoint = deployment.endpoint
    if endpoint.how != "reused":
        payload = {"how": endpoint.how, "model": endpoint.model_name, "hourly_usd": endpoint.hourly_usd}
        _tell(ENDPOINT_DEPLOYED, "endpoint", endpoint.name, payload)


def tell_drifted(check: HealthCheck, reason: str) -> None:
    """Tell of an endpoint that is not what it was."""
    _tell(ENDPOINT_DRIFTED, "endpoint", check.endpoint, {"reason": reason, **check.model_dump(mode="json")})


def tell_reaped(orphans: Iterable[Orphan]) -> None:
    """Tell of each thing that billed though nobody waited for it, and was ended."""
    for orphan in orphans:
        if orphan.reaped:
            kind = orphan.billing.kind.replace(" ", "-")
            payload = {"kind": orphan.billing.kind, "reason": orphan.reason, "saved_usd": orphan.saved_usd}
            _tell(ORPHAN_REAPED, kind, orphan.billing.name, payload)


def tell_budget_near(budget_usd: float, spent: Iterable[CostLine]) -> None:
    """Tell that most of what a run may spend is spent."""
    steps = {line.step: line.billed_usd for line in spent}
    payload = {"budget_usd": budget_usd, "spent_usd": sum(usd or 0.0 for usd in steps.values()), "steps": steps}
    _tell(BUDGET_NEAR, "run", str(flow_run.id), payload)


def _tell(event: str, kind: str, name: str, payload: Mapping[str, object]) -> None:
    """Send an event; Prefect adds which flow run it is of, and logs what it cannot send."""
    if not in_run():  # Prefect would start a server for it
        return
    resource = {
        "prefect.resource.id": f"{PROJECT}.{kind}.{name}",
        "prefect.resource.name": name,
        RUN_LABEL: "part" if flow_run.parent_flow_run_id else "alone",
    }
    emit_event(event, resource, payload=dict(payload))

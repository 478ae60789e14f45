"""Whether an endpoint is as good and as quick as it was when it was deployed, which its tags remember."""

import statistics

from tasks.aws.clients import client
from tasks.aws.endpoints import is_ours
from tasks.aws.errors import DriftError, FlowsError
from tasks.aws.identity import PROJECT
from tasks.aws.jobs import ENDPOINTS, describe, tags_at
from tasks.contracts import Baseline, EndpointResult, Health, HealthLimits, SampleAnswer
from tasks.retries import retried

_ACCURACY, _LATENCY = f"{PROJECT}:accuracy", f"{PROJECT}:latency-ms"
_PICTURES, _MANIFEST = f"{PROJECT}:pictures", f"{PROJECT}:manifest"


def health_of(answers: tuple[SampleAnswer, ...]) -> Health:
    """Return how good and how quick these answers were."""
    right = sum(one.answer.label == one.image.label for one in answers)
    return Health(
        pictures=len(answers),
        accuracy=right / len(answers),
        p50_ms=statistics.median(one.answer.milliseconds for one in answers),
    )


@retried("keep the baseline of {endpoint.name}")
def keep_baseline(endpoint: EndpointResult, answers: tuple[SampleAnswer, ...], manifest: str) -> None:
    """Remember, with the endpoint, what it was like when it was deployed; safe to retry."""
    health = health_of(answers)
    tags = {
        _ACCURACY: f"{health.accuracy:.6f}",
        _LATENCY: f"{health.p50_ms:.3f}",
        _PICTURES: str(health.pictures),
        _MANIFEST: manifest,
    }
    listed = [{"Key": key, "Value": value} for key, value in tags.items()]
    client("sagemaker").add_tags(ResourceArn=endpoint.arn, Tags=listed)


@retried("load the baseline of {endpoint}")
def load_baseline(endpoint: str) -> Baseline:
    """Return what an endpoint was like when it was deployed, and on which pictures.

    Raises:
        FlowsError: There is no such endpoint of this project, or nobody asked it about pictures then.
    """
    found = describe(ENDPOINTS, endpoint)
    if found is None or not is_ours(found["EndpointArn"]):
        msg = f"There is no endpoint {endpoint} of this project: deploy one (deploy_endpoint --manifest …)"
        raise FlowsError(msg)
    tags = tags_at(found["EndpointArn"])
    if _MANIFEST not in tags:
        msg = f"Nobody measured {endpoint} when it was deployed: deploy its model again, with --manifest"
        raise FlowsError(msg)
    health = Health(pictures=int(tags[_PICTURES]), accuracy=float(tags[_ACCURACY]), p50_ms=float(tags[_LATENCY]))
    return Baseline(health=health, manifest_s3_uri=tags[_MANIFEST])


def check_drift(endpoint: str, now: Health, then: Health, limits: HealthLimits) -> None:
    """Hold an endpoint against what it was.

    Raises:
        DriftError: It is worse, or slower, than the limits allow.
    """
    drifts = []
    if now.accuracy < then.accuracy - limits.most_accuracy_lost:
        drifts.append(f"{now.accuracy:.1%} of {now.pictures} pictures right, {then.accuracy:.1%} at its deployment")
    if now.p50_ms > then.p50_ms * limits.most_times_slower:
        drifts.append(f"answers take {now.p50_ms:.0f} ms in the median, {then.p50_ms:.0f} ms at its deployment")
    if drifts:
        raise DriftError(endpoint, "; ".join(drifts))

"""A wrong value is refused while it is asked for, by the server behind the form: no run exists that could only fail."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FLOWS = (
    "check_endpoint_health",
    "operationalize",
    "scale_endpoint",
    "teardown",
    "train_on_ec2",
    "tune_hyperparameters",
    "upload_dataset",
)
MANIFEST = {"manifest": "s3://a-bucket/dataset.json"}


@pytest.fixture(scope="module")
def deployments(prefect_server: dict[str, str]) -> dict[str, str]:
    """The ids of deployments, made as those who serve make them."""
    from prefect.flows import load_flow_from_entrypoint
    from prefect.settings import PREFECT_API_URL, temporary_settings

    async def deployed(name: str) -> str:
        entrypoint = str(ROOT / "flows" / f"{name}.py:{name}")
        flow = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
        return str(await (await flow.ato_deployment("form")).aapply())

    async def every() -> dict[str, str]:
        return {name: await deployed(name) for name in FLOWS}

    with temporary_settings({PREFECT_API_URL: prefect_server["PREFECT_API_URL"]}):
        return asyncio.run(every())


@pytest.fixture(scope="module")
def api(prefect_server: dict[str, str]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=prefect_server["PREFECT_API_URL"], timeout=60) as client:
        yield client


def runs_of(api: httpx.Client, deployment_id: str) -> int:
    body = {"deployments": {"id": {"any_": [deployment_id]}}}
    return int(api.post("/flow_runs/count", json=body).raise_for_status().json())


@pytest.mark.parametrize(
    ("name", "parameters", "field", "reason"),
    [
        ("operationalize", {"tuning": {"trials": 0}}, "tuning.trials", "0 is less than the minimum of 1"),
        ("operationalize", {"dataset": {"seed": -1}}, "dataset.seed", "-1 is less than the minimum of 0"),
        ("operationalize", {"dataset": {"source": ""}}, "dataset.source", "'' should be non-empty"),
        ("operationalize", {"compute": {"instance_type": "m5.xlarge"}}, "compute.instance_type", "does not match"),
        ("operationalize", {"compute": {"fallbacks": ["m5.xlarge"]}}, "compute.fallbacks[0]", "does not match"),
        ("operationalize", {"several": {"instance_count": 1}}, "several.instance_count", "less than the minimum of 2"),
        ("operationalize", {"ec2": {"volume_gb": 10}}, "ec2.volume_gb", "10 is less than the minimum of 50"),
        (
            "operationalize",
            {"endpoint": {"serverless": {"memory_mb": 2000}}},
            "endpoint.serverless.memory_mb",
            "2000 is not one of",
        ),
        ("operationalize", {"tuning": {"strategie": "Random"}}, "tuning", "'strategie' was unexpected"),
        ("operationalize", {"hyperparameters": {"lr": 1}}, "hyperparameters", "'lr' was unexpected"),
        ("operationalize", {"front": {"log_retention_days": 31}}, "front.log_retention_days", "31 is not one of"),
        ("operationalize", {"fresh": "perhaps"}, "fresh", "'perhaps' is not of type 'boolean'"),
        ("operationalize", {"reports_folder": ""}, "reports_folder", "'' should be non-empty"),
        ("tune_hyperparameters", {}, "", "'manifest' is a required property"),
        ("tune_hyperparameters", {"manifest": "dataset.json"}, "manifest", "'dataset.json' does not match '^s3://"),
        (
            "tune_hyperparameters",
            {**MANIFEST, "tuning": {"strategy": "Guess"}},
            "tuning.strategy",
            "'Guess' is not one",
        ),
        (
            "tune_hyperparameters",
            {**MANIFEST, "tuning": {"search": {"batch_size": [0]}}},
            "batch_size[0]",
            "minimum of 1",
        ),
        ("train_on_ec2", {**MANIFEST, "compute": {"instance_type": "ml.m5.xlarge"}}, "instance_type", "does not match"),
        (
            "scale_endpoint",
            {"endpoint": "live", "scaling": {"target": 60}},
            "endpoint",
            "'live' does not match '^flows-",
        ),
        ("scale_endpoint", {"endpoint": "flows-live", "scaling": {}}, "scaling", "'target' is a required property"),
        ("check_endpoint_health", {"endpoint": "flows-live", "limits": {"most_times_slower": 1}}, "slower", "minimum"),
        ("teardown", {"endpoint": "somebody-elses"}, "endpoint", "'somebody-elses' does not match"),
    ],
)
def test_a_wrong_value_is_refused_before_there_is_a_run(  # noqa: PLR0917 - what is asked, and what is answered
    api: httpx.Client, deployments: dict[str, str], name: str, parameters: dict[str, Any], field: str, reason: str
) -> None:
    answer = api.post(f"/deployments/{deployments[name]}/create_flow_run", json={"parameters": parameters})
    assert answer.status_code == httpx.codes.CONFLICT, answer.text
    detail = answer.json()["detail"]
    assert (f"{field}'" if field else "Validation failed.") in detail
    assert reason in detail
    assert runs_of(api, deployments[name]) == 0


def test_a_form_as_it_is_filled_in_is_taken(api: httpx.Client, deployments: dict[str, str]) -> None:
    deployment = api.get(f"/deployments/{deployments['upload_dataset']}").raise_for_status().json()
    fields = deployment["parameter_openapi_schema"]["properties"]
    filled_in = {name: field["default"] for name, field in fields.items()}
    answer = api.post(f"/deployments/{deployment['id']}/create_flow_run", json={"parameters": filled_in})
    assert answer.status_code == httpx.codes.CREATED, answer.text
    assert answer.json()["parameters"] == {"dataset": fields["dataset"]["default"]}
    assert runs_of(api, deployment["id"]) == 1

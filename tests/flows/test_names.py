"""What a person reads of a run: names that say what is done, whose line a line is, and a sentence where it fails."""

import pkgutil
import string
import types
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import boto3
import httpx
import pytest

from tasks.aws.settings import load_settings

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MANY = 200  # more than any run here has of anything
ERROR = 40  # as logging counts


# --- every template -------------------------------------------------------------------------------------------------


def named_things() -> Iterator[tuple[str, Any, str]]:
    """Every flow and task of ours: where it is, its function, and the template of its runs' names."""
    from prefect import Flow, Task

    for package in ("flows", "tasks"):
        for module in pkgutil.iter_modules([str(ROOT / package)], f"{package}."):
            for name, thing in vars(import_module(module.name)).items():
                template = getattr(thing, "flow_run_name", None) or getattr(thing, "task_run_name", None)
                if isinstance(thing, Flow | Task) and thing.fn.__module__ == module.name:
                    yield f"{module.name}.{name}", thing.fn, template


def plain(annotation: Any) -> Any:
    """A type without what is annotated about it."""
    return plain(get_args(annotation)[0]) if get_origin(annotation) is Annotated else annotation


def attribute_type(owner: Any, attribute: str) -> Any:
    """The type of an attribute or property; of what may be None too, there is none."""
    assert get_origin(owner) not in (Union, types.UnionType), f"{owner} may have no {attribute}"
    hints = get_type_hints(owner)
    if attribute in hints:
        return plain(hints[attribute])
    return plain(get_type_hints(getattr(owner, attribute).fget)["return"])


def test_every_name_can_be_made() -> None:
    """Prefect fills a template in when the run starts, and fails the run where something of it is missing."""
    found = list(named_things())
    assert {"flows.operationalize.operationalize", "tasks.uploads.upload_dataset"} <= {where for where, *_ in found}
    assert [where for where, _, template in found if not template] == []
    for where, function, template in found:
        hints = get_type_hints(function)
        for _, path, _, _ in string.Formatter().parse(template):
            first, *rest = path.split(".") if path else ("return",)
            kind = plain(hints[first])
            for attribute in rest:
                kind = attribute_type(kind, attribute)
            assert kind is not type(None), where


# --- a run ----------------------------------------------------------------------------------------------------------


def newest(api: httpx.Client, name: str) -> dict[str, Any]:
    body = {"flow_runs": {"name": {"any_": [name]}}, "sort": "START_TIME_DESC", "limit": 1}
    (run,) = api.post("/flow_runs/filter", json=body).raise_for_status().json()
    return dict(run)


def tasks_of(api: httpx.Client, run: dict[str, Any]) -> list[str]:
    body = {"flow_runs": {"id": {"any_": [run["id"]]}}, "limit": MANY}
    return [one["name"] for one in api.post("/task_runs/filter", json=body).raise_for_status().json()]


def log_of(api: httpx.Client, run: dict[str, Any]) -> list[dict[str, Any]]:
    body = {"logs": {"flow_run_id": {"any_": [run["id"]]}}, "sort": "TIMESTAMP_ASC", "limit": MANY}
    return list(api.post("/logs/filter", json=body).raise_for_status().json())


def test_runs_are_named_after_what_they_do_and_lines_after_who_wrote_them(
    run_flow: Any, prefect_api: httpx.Client, manifest: str
) -> None:
    options = ("--compute.instance-count", "2", "--hyperparameters.epochs", "1", "--hyperparameters.seed", "1009")
    result = run_flow("train_multi_instance", manifest, *options)
    assert result.returncode == 0, result.stderr[-2000:]
    job = result.stdout.strip().splitlines()[-1].split("/")[-3]
    run = newest(prefect_api, "train small_cnn on 2 × ml.m5.xlarge")
    named = {"start a training on 2 × ml.m5.xlarge", f"await {job}", f"fetch the report of {job}"}
    assert named <= set(tasks_of(prefect_api, run))
    lines = [one["message"] for one in log_of(prefect_api, run)]
    assert any(line.startswith(f"[{job}/algo-1] epoch=1 ") for line in lines)
    assert any(line.startswith(f"[{job}/algo-2] ") for line in lines)
    assert "upload digits" in tasks_of(prefect_api, newest(prefect_api, "upload digits"))


def test_a_failed_run_says_why_without_a_stack(run_flow: Any, prefect_api: httpx.Client, manifest: str) -> None:
    """The job's own last lines show its stack, once; Prefect's and ours would only hide them."""
    bucket = load_settings().bucket
    boto3.client("s3").put_object(Bucket=bucket, Key="weights/none.safetensors", Body=b"no weights at all")
    weights = f"s3://{bucket}/weights/none.safetensors"
    options = ("--hyperparameters.architecture", "mobilenet_v3_small", "--hyperparameters.weights", weights)
    result = run_flow("train_single_instance", manifest, *options)
    assert result.returncode == 1
    assert "prefect/flow_engine.py" not in result.stderr
    log = log_of(prefect_api, newest(prefect_api, "train mobilenet_v3_small on ml.m5.xlarge"))
    told = [one["message"] for one in log if one["level"] >= ERROR and one["task_run_id"] is None]
    assert len(told) == 1
    assert told[0].startswith("The training job flows-train-single-")
    assert "none.safetensors" in told[0]
    assert len(told[0].splitlines()) < 40
    ends = [one["message"] for one in log if one["message"].startswith("Finished in state Failed(")]
    assert len(ends) >= 2
    assert not [end for end in ends if r"\n" in end]


def test_whoever_debugs_sees_the_stack(run_flow: Any) -> None:
    debugging = {"PREFECT_LOGGING_LEVEL": "DEBUG"}
    result = run_flow("train_single_instance", "s3://no-such-bucket/dataset.json", environment=debugging)
    assert result.returncode == 1
    assert "prefect/flow_engine.py" in result.stderr

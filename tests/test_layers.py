"""Left may import right, never back: flows -> tasks -> tasks.aws, tasks.data -> tasks.contracts (decision 0001)."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("flows", "tasks", "training", "deployments")

# What each part may import of ours, and what of others' it must not.
RULES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "flows": (("flows", "tasks"), ("boto3",)),
    "tasks": (("tasks",), ("moto",)),
    "tasks/aws": (("tasks.aws", "tasks.contracts"), ("prefect", "moto")),
    "tasks/data": (("tasks.data", "tasks.contracts", "tasks.aws.errors"), ("prefect", "boto3", "moto")),
    "training": (("training",), ("prefect", "boto3", "moto", "sagemaker")),
    # Alone on a plain machine, it fetches and sends what SageMaker would; stdlib and boto3, as a Lambda function.
    "training/instance_job.py": ((), ("prefect", "moto", "sagemaker", "torch")),
    "training/serving": ((), ("torch", "torchvision", "prefect", "boto3", "moto")),
    "deployments/local_aws": (("deployments.local_aws",), ("prefect", "torch", "sagemaker")),
    "lambda": ((), ("prefect", "sagemaker", "torch")),
}


def imported_modules(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
    return found


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def rule_for(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    places = [place.relative_to(ROOT).as_posix() for place in (path, *path.parents) if place.is_relative_to(ROOT)]
    return next((RULES[place] for place in places if place in RULES), None)


@pytest.mark.parametrize("folder", ["flows", "tasks", "training", "deployments", "lambda"])
def test_imports_go_one_way_only(folder: str) -> None:
    offences = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        rule = rule_for(path)
        if rule is None:
            continue
        allowed, forbidden = rule
        for module in imported_modules(path):
            of_ours = any(within(module, package) for package in OURS)
            # `from tasks import charts` names both the package and the module: the package alone is no offence.
            if of_ours and module not in OURS and not any(within(module, package) for package in allowed):
                offences.append(f"{path.relative_to(ROOT)} imports {module}")
            if any(within(module, package) for package in forbidden):
                offences.append(f"{path.relative_to(ROOT)} imports {module}")
    assert offences == []


def test_no_module_is_named_like_something_else_that_is_imported() -> None:
    """`flows/training.py` would hide the package `training` when run as `python flows/NAME.py`."""
    taken = set(sys.stdlib_module_names) | {*OURS, "prefect", "boto3", "sagemaker", "torch", "moto", "ray"}
    scripts = [path for folder in OURS for path in (ROOT / folder).glob("*.py")]
    assert [path.name for path in scripts if path.stem in taken - {"__init__"}] == []


def test_nothing_asks_whether_it_is_local() -> None:
    sources = [path for folder in ("flows", "tasks", "training") for path in (ROOT / folder).rglob("*.py")]
    assert [path.name for path in sources if "local_aws" in path.read_text(encoding="utf-8")] == []

"""requirements.txt on this machine: checked against what is installed, never installed."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement


def unmet_requirements(file: Path) -> list[str]:
    """Return the lines of a requirements.txt that this Python does not satisfy; none when there is no such file.

    AWS's images install them with pip. Here that would change the environment of everybody else.
    """
    if not file.exists():
        return []
    lines = [line.split("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line and not _is_met(line)]


def _is_met(line: str) -> bool:
    try:
        requirement = Requirement(line)
    except InvalidRequirement:
        return False
    if requirement.marker and not requirement.marker.evaluate():
        return True
    try:
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except PackageNotFoundError:
        return False

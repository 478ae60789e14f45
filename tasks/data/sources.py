"""Bring a dataset onto this machine, from wherever the spec says it is."""

import os
import re
from pathlib import Path

from tasks.contracts import DatasetSpec
from tasks.data.archives import DOG_BREEDS, Archive, fetch_archive
from tasks.data.digits import write_digits
from tasks.data.folders import scan
from tasks.data.pictures import StagedDataset

_LONGEST_SLUG = 40


def stage(spec: DatasetSpec, workspace: Path, dog_breeds: Archive = DOG_BREEDS) -> StagedDataset:
    """Return the pictures of a dataset that is not in S3; a folder of the user's is read where it is, never written.

    Raises:
        DatasetError: There is no such dataset, or it could not be downloaded.
    """
    if spec.source == "digits":
        return scan(write_digits(spec, workspace), "digits")
    if spec.source == "dog-breeds":
        return scan(fetch_archive(dog_breeds, workspace), "dog-breeds")
    folder = Path(spec.source).expanduser()
    return scan(folder, slug(folder.resolve().name))


def cache_folder() -> Path:
    """Return where the datasets lie that this project writes or downloads (SAGEMAKER_FLOWS_CACHE)."""
    named = os.environ.get("SAGEMAKER_FLOWS_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "sagemaker-flows"


def slug(name: str) -> str:
    """Return a name as it may stand in an S3 key and in the name of a job: lowercase letters, digits, dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_LONGEST_SLUG].strip("-") or "dataset"

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tasks.contracts import DatasetSpec
from tasks.data.sources import cache_folder, slug, stage


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace")


def test_digits_are_all_there_in_every_split_and_class(workspace: Path) -> None:
    counts = Counter(image.split for image in stage(DatasetSpec(), workspace).images)
    assert sum(counts.values()) == 1797
    assert counts["valid"] == counts["test"] == 359
    classes = Counter(image.label for image in stage(DatasetSpec(), workspace).images if image.split == "test")
    assert sorted(classes) == list("0123456789")
    assert max(classes.values()) - min(classes.values()) <= 2


def test_digits_are_the_pixels_of_scikit_learn(workspace: Path) -> None:
    digits = load_digits()
    for image in stage(DatasetSpec(), workspace).images[::100]:
        index = int(image.path.stem.removeprefix("digit-"))
        pixels = np.asarray(Image.open(image.path))
        assert image.label == str(digits.target[index])
        assert np.abs(pixels / 255 * 16 - digits.images[index]).max() < 0.05


def test_the_seed_decides_the_split_of_digits(workspace: Path) -> None:
    def split(seed: int) -> dict[str, str | None]:
        return {image.name: image.split for image in stage(DatasetSpec(seed=seed), workspace).images}

    assert split(1) == split(1)
    assert split(1) != split(2)


def test_digits_that_lost_files_are_written_again(tmp_path: Path) -> None:
    for image in stage(DatasetSpec(), tmp_path).images[:5]:
        image.path.unlink()
    assert len(stage(DatasetSpec(), tmp_path).images) == 1797


def test_a_folder_named_like_a_preset_needs_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits" / "cat").mkdir(parents=True)
    assert stage(DatasetSpec(source="./digits"), tmp_path / "cache").empty_folders == ("cat",)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("My Pets (2020)", "my-pets-2020"), ("---", "dataset"), ("Ä", "dataset"), ("x" * 99, "x" * 40)],
)
def test_a_name_becomes_fit_for_keys_and_jobs(name: str, expected: str) -> None:
    assert slug(name) == expected


def test_the_cache_can_be_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SAGEMAKER_FLOWS_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path

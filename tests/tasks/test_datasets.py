from collections import Counter
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image

from tasks.aws.clients import client
from tasks.aws.errors import DatasetError
from tasks.aws.settings import load_settings
from tasks.contracts import Dataset, DatasetSpec, ImageFile, Prediction
from tasks.datasets import fetch_images, fetch_predicted, inspect_dataset, lies_in_s3, load_dataset, load_manifest
from tasks.uploads import upload_dataset


@pytest.fixture
def spec(tmp_path: Path) -> DatasetSpec:
    """Three classes of ten pictures."""
    root = tmp_path / f"letters-{uuid4().hex[:8]}"
    dice = np.random.default_rng(0)
    for label in "abc":
        (root / label).mkdir(parents=True)
        for index in range(10):
            Image.fromarray(dice.integers(0, 256, (8, 8), dtype=np.uint8)).save(root / label / f"{index}.png")
    return DatasetSpec(source=str(root))


@pytest.fixture
def dataset(local_aws: object, spec: DatasetSpec) -> Dataset:
    _ = local_aws
    return upload_dataset.fn(inspect_dataset.fn(spec), load_settings().bucket).dataset


def test_digits_are_staged_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGEMAKER_FLOWS_CACHE", str(tmp_path / "cache"))
    inspected = inspect_dataset.fn(DatasetSpec())
    assert len(inspected.images) == 1797
    assert inspected.warnings == ()
    assert inspected.root.is_relative_to(tmp_path / "cache")


def test_a_dataset_that_does_not_exist_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGEMAKER_FLOWS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DatasetError, match="does not exist: give 'digits', 'dog-breeds', an s3:// URI, or a folder"):
        inspect_dataset.fn(DatasetSpec(source=str(tmp_path / "nowhere")))
    assert list(tmp_path.iterdir()) == []


def test_only_s3_uris_lie_in_s3() -> None:
    assert lies_in_s3(DatasetSpec(source="s3://bucket/pets"))
    assert not lies_in_s3(DatasetSpec(source="./pets"))


def test_the_manifest_has_every_file(dataset: Dataset, spec: DatasetSpec) -> None:
    files = load_manifest.fn(dataset)
    digests = sorted(image.sha256 for image in inspect_dataset.fn(spec).images)
    assert sorted(file.sha256 for file in files) == digests
    assert Counter(file.split for file in files) == {"train": 18, "valid": 6, "test": 6}


def test_a_dataset_is_known_by_the_uri_of_its_manifest(dataset: Dataset) -> None:
    assert load_dataset.fn(dataset.manifest_s3_uri) == dataset


@pytest.mark.parametrize(
    ("uri", "said"),
    [("dataset.json", "is no S3 URI"), ("s3://no-such-bucket-of-ours/dataset.json", "There is no s3://no-such-bucket")],
)
def test_a_uri_that_leads_to_no_manifest_says_so(local_aws: object, uri: str, said: str) -> None:
    _ = local_aws
    with pytest.raises(DatasetError, match=said):
        load_dataset.fn(uri)


def test_fetched_images_are_spread_over_the_classes(dataset: Dataset, spec: DatasetSpec) -> None:
    images = fetch_images.fn(dataset, "test", 3)
    assert sorted(image.label for image in images) == ["a", "b", "c"]
    for image in images:
        assert image.body == (Path(spec.source) / image.label / image.name).read_bytes()


def test_the_seed_chooses_the_images(dataset: Dataset) -> None:
    assert fetch_images.fn(dataset, "train", 4, 1) == fetch_images.fn(dataset, "train", 4, 1)
    assert fetch_images.fn(dataset, "train", 4, 1) != fetch_images.fn(dataset, "train", 4, 2)


def test_no_more_images_come_than_there_are(dataset: Dataset) -> None:
    assert len(fetch_images.fn(dataset, "test", 100)) == 6


def predictions_of(*files: ImageFile) -> tuple[Prediction, ...]:
    """What a training program would report of files: each by its class folder and its name in the channel."""
    return tuple(
        Prediction(file="/".join(file.key.rsplit("/", 2)[1:]), label=file.label, predicted="a", probability=0.5)
        for file in files
    )


def test_the_pictures_of_predictions_come_in_their_order(dataset: Dataset, spec: DatasetSpec) -> None:
    tests = [file for file in load_manifest.fn(dataset) if file.split == "test"]
    predictions = predictions_of(*reversed(tests))
    found = fetch_predicted.fn(dataset, predictions)
    assert tuple(one.prediction for one in found) == predictions
    for one, file in zip(found, reversed(tests), strict=True):
        assert one.image.label == file.label
        assert one.image.body == (Path(spec.source) / file.label / file.name).read_bytes()


def test_pictures_that_are_gone_are_left_out(dataset: Dataset) -> None:
    first, second, *_ = (file for file in load_manifest.fn(dataset) if file.split == "test")
    unknown = Prediction(file="a/never.png", label="a", predicted="a", probability=0.5)
    client("s3").delete_object(Bucket=dataset.bucket, Key=first.key)
    (found,) = fetch_predicted.fn(dataset, (unknown, *predictions_of(first, second)))
    assert (found.image.name, found.image.label) == (second.name, second.label)


def test_a_manifest_that_is_gone_says_what_to_do(dataset: Dataset) -> None:
    client("s3").delete_object(Bucket=dataset.bucket, Key=dataset.manifest_s3_uri.split("/", 3)[3])
    with pytest.raises(DatasetError, match=r"There is no s3://.*/dataset\.json: check the URI, or upload"):
        load_manifest.fn(dataset)


def test_a_manifest_of_another_make_says_what_to_do(dataset: Dataset) -> None:
    key = dataset.manifest_s3_uri.split("/", 3)[3]
    client("s3").put_object(Bucket=dataset.bucket, Key=key, Body=b'{"files": "none"}')
    with pytest.raises(DatasetError, match=r"is no manifest .* of this version: upload the dataset again"):
        load_manifest.fn(dataset)

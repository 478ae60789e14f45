"""Datasets before and after their upload: inspect what is on this machine, read back what is in S3."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain, islice, zip_longest

from botocore.exceptions import ClientError
from pydantic import ValidationError

from tasks.aws.clients import client
from tasks.aws.errors import DatasetError, is_code
from tasks.contracts import Dataset, DatasetSpec, ImageFile, LabelledImage, PredictedImage, Prediction, Split
from tasks.data.inspections import inspect
from tasks.data.manifests import Manifest
from tasks.data.pictures import InspectedDataset
from tasks.data.prefixes import parse_uri
from tasks.data.sources import cache_folder, stage
from tasks.retries import retried

_THREADS = 32


def lies_in_s3(spec: DatasetSpec) -> bool:
    """Tell whether the dataset is to be read where it is (register_prefix), and not inspected and uploaded."""
    return spec.source.startswith("s3://")


@retried("inspect {spec.source}")
def inspect_dataset(spec: DatasetSpec) -> InspectedDataset:
    """Bring a dataset onto this machine and look at every picture of it; nothing is uploaded.

    Safe to retry: a download that broke off goes on where it did.

    Raises:
        DatasetError: It does not exist, or is not fit for training; one sentence names everything that is wrong.
    """
    return inspect(stage(spec, cache_folder()), spec)


@retried("load {manifest_s3_uri}")
def load_dataset(manifest_s3_uri: str) -> Dataset:
    """Return the dataset that a manifest in S3 describes (its dataset.json).

    Raises:
        DatasetError: It is no S3 URI, there is nothing, it may not be read, or it is no manifest of a dataset.
    """
    return _read_manifest(manifest_s3_uri).dataset


@retried("list the pictures of {dataset.name}")
def load_manifest(dataset: Dataset) -> tuple[ImageFile, ...]:
    """Return every file of a dataset in S3."""
    return _read_manifest(dataset.manifest_s3_uri).files


@retried("fetch {count} {split} pictures of {dataset.name}")
def fetch_images(dataset: Dataset, split: Split, count: int, seed: int = 42) -> tuple[LabelledImage, ...]:
    """Return some pictures of a split, spread over the classes; the same seed chooses the same ones.

    There are fewer than asked for when the split has no more.
    """
    files = (file for file in _read_manifest(dataset.manifest_s3_uri).files if file.split == split)
    chosen = list(islice(_spread(files, seed), count))
    with ThreadPoolExecutor(_THREADS) as pool:
        return tuple(pool.map(lambda file: _read_image(dataset, file), chosen))


@retried("fetch the predicted pictures of {dataset.name}")
def fetch_predicted(dataset: Dataset, predictions: tuple[Prediction, ...]) -> tuple[PredictedImage, ...]:
    """Return the test pictures that a few predictions are of, in their order."""
    tests = [file for file in _read_manifest(dataset.manifest_s3_uri).files if file.split == "test"]
    found = []
    for prediction in predictions:
        file = _file_of(prediction, tests)
        if file:
            with suppress(DatasetError):  # gone since the training: there is one less to look at
                found.append(PredictedImage(image=_read_image(dataset, file), prediction=prediction))
    return tuple(found)


def _file_of(prediction: Prediction, files: Iterable[ImageFile]) -> ImageFile | None:
    """Return the file whose name the training program has reported: as it lies in its channel, below the class."""
    named = (file for file in files if file.label == prediction.label and file.key.endswith(f"/{prediction.file}"))
    return next(named, None)


def _read_image(dataset: Dataset, file: ImageFile) -> LabelledImage:
    return LabelledImage(name=file.name, label=file.label, body=_read(dataset.bucket, file.key))


def _spread(files: Iterable[ImageFile], seed: int) -> Iterator[ImageFile]:
    """Yield a first file of every class, then a second of every class, and so on, in a seeded order."""

    def rank(text: str) -> bytes:
        return hashlib.sha256(f"{seed}:{text}".encode()).digest()

    by_label: dict[str, list[ImageFile]] = defaultdict(list)
    for file in sorted(files, key=lambda file: rank(file.key)):
        by_label[file.label].append(file)
    rounds = zip_longest(*(by_label[label] for label in sorted(by_label, key=rank)))
    return (file for file in chain.from_iterable(rounds) if file)


def _read_manifest(uri: str) -> Manifest:
    where = parse_uri(uri)
    try:
        return Manifest.model_validate_json(_read(where.bucket, where.prefix.rstrip("/")))
    except ValidationError as error:
        msg = f"{uri} is no manifest (dataset.json) of this version: upload the dataset again"
        raise DatasetError(msg) from error


def _read(bucket: str, key: str) -> bytes:
    try:
        body: bytes = client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as error:
        if is_code(error, "NoSuchKey", "NoSuchBucket"):
            msg = f"There is no s3://{bucket}/{key}: check the URI, or upload the dataset again"
        elif is_code(error, "AccessDenied"):
            msg = f"s3://{bucket}/{key} does not exist, or may not be read with these credentials"
        else:
            raise
        raise DatasetError(msg) from error
    return body

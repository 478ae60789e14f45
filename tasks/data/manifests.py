"""The manifest of a dataset, and where its files lie in S3; pure.

Files are stored by content, `datasets/<name>/files/<class>/<first 12 of sha256>-<file>`, so that an unchanged file is
never sent twice, versions share their files, and a running job never sees a file change. What a version consists of
is said by `datasets/<name>/versions/<digest>/{train,valid,test}.json`, in the form that SageMaker takes for a channel,
and by `dataset.json` beside them, which has everything. The class is a folder, so training reads it as ImageFolder.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable

from tasks.contracts import SPLITS, Channel, Dataset, ImageFile, Split, Value
from tasks.data.pictures import CheckedImage, InspectedDataset, Picture

_DIGEST_SHOWN = 12
_LONGEST_STEM = 80
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


class Manifest(Value):
    """Everything about one version of a dataset: dataset.json."""

    dataset: Dataset
    files: tuple[ImageFile, ...]


def build_manifest(inspected: InspectedDataset, bucket: str) -> Manifest:
    """Return the manifest of a dataset as it will lie in a bucket."""
    # The same file in two folders of one class is one object, and must not count twice.
    unique = {(image.split, key_of(inspected.name, image)): image for image in inspected.images}
    files = tuple(_image_file(image, key) for (_, key), image in unique.items())
    digest = digest_of_pictures(inspected.images)
    version = version_prefix(inspected.name, digest)
    return Manifest(
        dataset=Dataset(
            name=inspected.name,
            digest=digest,
            bucket=bucket,
            classes=inspected.classes,
            counts=counts_of(files),
            channels={split: Channel(s3_uri=f"s3://{bucket}/{version}{split}.json") for split in SPLITS},
            manifest_s3_uri=f"s3://{bucket}/{version}dataset.json",
            total_bytes=sum(file.size_bytes for file in files),
            warnings=inspected.warnings,
        ),
        files=files,
    )


def digest_of_pictures(pictures: Iterable[Picture]) -> str:
    """Return the SHA-256 that identifies a dataset: of the sorted, distinct lines `split TAB class TAB sha256`.

    File names and their order do not count: they change nothing about what is learned.
    """
    lines = sorted({f"{picture.split}\t{picture.label}\t{picture.sha256}\n" for picture in pictures})
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def counts_of(pictures: Iterable[Picture]) -> dict[Split, dict[str, int]]:
    """Return the number of pictures per split and class; a class that a split lacks counts 0."""
    listed = list(pictures)
    classes = sorted({picture.label for picture in listed})
    counts: dict[Split, dict[str, int]] = {split: dict.fromkeys(classes, 0) for split in SPLITS}
    for picture in listed:
        counts[picture.split][picture.label] += 1
    return counts


def files_prefix(name: str) -> str:
    """Return the prefix of all files of a dataset, over all its versions."""
    return f"datasets/{name}/files/"


def version_prefix(name: str, digest: str) -> str:
    """Return the prefix of the manifests of one version."""
    return f"datasets/{name}/versions/{digest[:_DIGEST_SHOWN]}/"


def key_of(dataset_name: str, image: CheckedImage) -> str:
    """Return the S3 key of a picture.

    The class is kept as the user wrote it, spaces and umlauts too, since endpoints answer with it. Of the file name
    only letters, digits, dots, dashes and underscores stay: nothing depends on it, people only read it.
    """
    stem, suffix = os.path.splitext(_UNSAFE.sub("_", image.name))  # noqa: PTH122 - the name is no path of this system
    return f"{files_prefix(dataset_name)}{image.label}/{image.sha256[:_DIGEST_SHOWN]}-{stem[:_LONGEST_STEM]}{suffix}"


def channel_manifests(manifest: Manifest) -> dict[str, str]:
    """Return the manifests of the channels by S3 key, in SageMaker's form: the prefix, then each file below it.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_S3DataSource.html
    """
    dataset = manifest.dataset
    prefix = files_prefix(dataset.name)
    documents = {}
    for split in SPLITS:
        below = sorted(file.key.removeprefix(prefix) for file in manifest.files if file.split == split)
        entries = [{"prefix": f"s3://{dataset.bucket}/{prefix}"}, *below]
        key = f"{version_prefix(dataset.name, dataset.digest)}{split}.json"
        documents[key] = json.dumps(entries, indent=0, ensure_ascii=False)
    return documents


def _image_file(image: CheckedImage, key: str) -> ImageFile:
    return ImageFile(
        split=image.split,
        label=image.label,
        name=image.name,
        key=key,
        sha256=image.sha256,
        size_bytes=image.size_bytes,
    )

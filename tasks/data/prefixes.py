"""A dataset that lies in S3 already: read the layout from its keys; pure."""

import re
from collections.abc import Sequence

from tasks.aws.errors import DatasetError
from tasks.contracts import SPLITS, Channel, Dataset, ImageFile, Split, Value
from tasks.data.findings import errors_in, sentence_of, warnings_in
from tasks.data.folders import SPLIT_FOLDERS, is_hidden, is_image, unfit_labels
from tasks.data.manifests import Manifest, counts_of, digest_of_pictures, version_prefix
from tasks.data.sentences import quantity, some
from tasks.data.sources import slug

_URI = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*))?")
_LAYOUT = "train/<class>/…, valid/<class>/… and test/<class>/…"


class S3Object(Value):
    """An object as a listing shows it."""

    key: str
    size_bytes: int
    etag: str


class S3Prefix(Value):
    """Where a dataset lies: the prefix ends with a slash, or is empty for a whole bucket."""

    bucket: str
    prefix: str

    def __str__(self) -> str:
        """Return the URI."""
        return f"s3://{self.bucket}/{self.prefix}"


def parse_uri(uri: str) -> S3Prefix:
    """Return the parts of an s3:// URI.

    Raises:
        DatasetError: It is none.
    """
    match = _URI.fullmatch(uri)
    if not match:
        msg = f"{uri} is no S3 URI: write s3://bucket/prefix, with the bucket in lowercase letters, digits and dashes"
        raise DatasetError(msg)
    prefix = (match["prefix"] or "").strip("/")
    return S3Prefix(bucket=match["bucket"], prefix=f"{prefix}/" if prefix else "")


def build_prefix_manifest(source: S3Prefix, objects: Sequence[S3Object], own_bucket: str) -> Manifest:
    """Return the manifest of the pictures under a prefix, for jobs to read them where they lie.

    Nothing is downloaded: contents are told apart by ETag, and a corrupt picture shows in the training only.

    Raises:
        DatasetError: There is nothing, it is not in train, valid and test, or it is not fit for training.
    """
    if not objects:
        msg = f"There is nothing under {source}: check the prefix, or give a local folder to upload"
        raise DatasetError(msg)
    files, others, empty = _read_layout(source, objects)
    _check_layout(source, files, [*empty])
    digest = digest_of_pictures(_with_key(file) for file in files)
    name = slug(source.prefix.rstrip("/").rpartition("/")[2] or source.bucket)
    folders = _split_folders(source, files)
    return Manifest(
        dataset=Dataset(
            name=name,
            digest=digest,
            bucket=source.bucket,
            classes=tuple(sorted({file.label for file in files})),
            counts=counts_of(files),
            channels={s: Channel(s3_uri=f"{source}{folders[s]}/", data_type="S3Prefix") for s in SPLITS},
            manifest_s3_uri=f"s3://{own_bucket}/{version_prefix(name, digest)}dataset.json",
            total_bytes=sum(file.size_bytes for file in files),
            warnings=(*_foreign(source, own_bucket), *_unused(others), *warnings_in(files)),
        ),
        files=files,
    )


def _read_layout(source: S3Prefix, objects: Sequence[S3Object]) -> tuple[tuple[ImageFile, ...], list[str], list[str]]:
    """Return the pictures, the other files, and the class folders that only have a marker."""
    files, others, folders = [], [], set()
    for item in objects:
        split, _, rest = item.key.removeprefix(source.prefix).partition("/")
        label, _, name = rest.partition("/")
        if split in SPLIT_FOLDERS and label and name and is_image(name) and not _is_hidden(name):
            files.append(_image_file(item, SPLIT_FOLDERS[split], label, name))
        elif split in SPLIT_FOLDERS and label and not name and item.key.endswith("/"):
            folders.add(f"{SPLIT_FOLDERS[split]}/{label}")
        elif not item.key.endswith("/") and not _is_hidden(item.key):
            others.append(item.key.removeprefix(source.prefix))
    return tuple(files), others, sorted(folders - {f"{file.split}/{file.label}" for file in files})


def _image_file(item: S3Object, split: Split, label: str, name: str) -> ImageFile:
    return ImageFile(
        split=split, label=label, name=name, key=item.key, sha256=item.etag.strip('"'), size_bytes=item.size_bytes
    )


def _check_layout(source: S3Prefix, files: Sequence[ImageFile], empty: Sequence[str]) -> None:
    if not files:
        msg = f"There are no JPEG or PNG pictures in {_LAYOUT} under {source}: arrange them so, or give a local folder"
        raise DatasetError(msg)
    errors = errors_in(files, empty)
    if unfit := unfit_labels(file.label for file in files):
        errors.append(f"control characters or backslashes in {quantity(len(unfit), 'class name')}")
    twice = [split for split in SPLITS if len(_folders_of(split, source, files)) > 1]
    if twice:
        errors.append(f"more than one folder for {' and '.join(twice)}, keep one")
    if errors:
        raise DatasetError(sentence_of(str(source), errors))


def _split_folders(source: S3Prefix, files: Sequence[ImageFile]) -> dict[Split, str]:
    return {split: _folders_of(split, source, files).pop() for split in SPLITS}


def _folders_of(split: Split, source: S3Prefix, files: Sequence[ImageFile]) -> set[str]:
    return {file.key.removeprefix(source.prefix).partition("/")[0] for file in files if file.split == split}


def _with_key(file: ImageFile) -> ImageFile:
    """Return the file as the digest of a foreign prefix sees it: the key counts too, since jobs read it by key."""
    return file.model_copy(update={"sha256": f"{file.key}\t{file.sha256}"})


def _foreign(source: S3Prefix, own_bucket: str) -> list[str]:
    if source.bucket == own_bucket:
        return []
    return [f"Found the pictures in {source.bucket}, while the roles of the foundation may read {own_bucket} only"]


def _unused(names: Sequence[str]) -> list[str]:
    found = quantity(len(names), "object")
    return [f"Found {found} that are no pictures in class folders: {some(names)}"] if names else []


def _is_hidden(name: str) -> bool:
    return any(is_hidden(part) for part in name.split("/") if part)

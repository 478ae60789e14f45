import json
from pathlib import Path

import pytest

from tasks.contracts import Split
from tasks.data.manifests import Manifest, build_manifest, channel_manifests, digest_of_pictures, key_of
from tasks.data.pictures import CheckedImage, InspectedDataset


def image(split: Split = "train", label: str = "cat", name: str = "1.png", sha256: str = "a" * 64) -> CheckedImage:
    return CheckedImage(path=Path(name), split=split, label=label, name=name, sha256=sha256, size_bytes=10)


def manifest_of(*images: CheckedImage) -> Manifest:
    return build_manifest(InspectedDataset(name="pets", root=Path("pets"), images=images, warnings=("w",)), "bucket")


def test_a_channel_is_a_manifest_as_sagemaker_reads_it() -> None:
    """The first entry is the prefix, each other one a file relative to it; the class is the folder."""
    manifest = manifest_of(image(label="dog", sha256="b" * 64), image(), image("test", sha256="c" * 64))
    documents = {key.rpartition("/")[2]: json.loads(text) for key, text in channel_manifests(manifest).items()}
    prefix = {"prefix": "s3://bucket/datasets/pets/files/"}
    assert documents["train.json"] == [prefix, "cat/aaaaaaaaaaaa-1.png", "dog/bbbbbbbbbbbb-1.png"]
    assert documents["test.json"] == [prefix, "cat/cccccccccccc-1.png"]
    assert documents["valid.json"] == [prefix]


def test_channels_point_at_their_manifests() -> None:
    manifest = manifest_of(image())
    keys = [f"s3://bucket/{key}" for key in channel_manifests(manifest)]
    assert [channel.s3_uri for channel in manifest.dataset.channels.values()] == keys
    assert {channel.data_type for channel in manifest.dataset.channels.values()} == {"ManifestFile"}


def test_counts_name_every_class_in_every_split() -> None:
    dataset = manifest_of(image(), image(label="dog", sha256="b" * 64), image("test", sha256="c" * 64)).dataset
    assert dataset.counts == {
        "train": {"cat": 1, "dog": 1},
        "valid": {"cat": 0, "dog": 0},
        "test": {"cat": 1, "dog": 0},
    }
    assert dataset.total_files == 3
    assert dataset.total_bytes == 30
    assert dataset.warnings == ("w",)


def test_the_same_file_in_two_folders_of_a_class_counts_once() -> None:
    assert manifest_of(image(name="a/1.png"), image(name="a_1.png")).dataset.total_files == 1


def test_the_digest_does_not_depend_on_order_or_names() -> None:
    one, other = image(), image(label="dog", name="2.png", sha256="b" * 64)
    renamed = image(name="renamed.png")
    assert digest_of_pictures([one, other]) == digest_of_pictures([other, renamed])


@pytest.mark.parametrize("changed", [image("test"), image(label="dog"), image(sha256="b" * 64)])
def test_split_class_and_content_decide_the_digest(changed: CheckedImage) -> None:
    assert digest_of_pictures([image()]) != digest_of_pictures([changed])


@pytest.mark.parametrize(
    ("label", "name", "expected"),
    [
        ("001.Affenpinscher", "Affenpinscher_00001.jpg", "001.Affenpinscher/aaaaaaaaaaaa-Affenpinscher_00001.jpg"),
        ("Größe 1", "a b/ü?.PNG", "Größe 1/aaaaaaaaaaaa-a_b_.PNG"),
        ("cat", "x" * 300 + ".jpeg", f"cat/aaaaaaaaaaaa-{'x' * 80}.jpeg"),
    ],
)
def test_keys_keep_the_class_and_tame_the_file_name(label: str, name: str, expected: str) -> None:
    assert key_of("pets", image(label=label, name=name)) == f"datasets/pets/files/{expected}"

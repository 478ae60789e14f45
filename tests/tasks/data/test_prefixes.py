import pytest

from tasks.aws.errors import DatasetError
from tasks.data.manifests import Manifest
from tasks.data.prefixes import S3Object, build_prefix_manifest, parse_uri

GOOD = [f"{split}/{label}/1.png" for split in ("train", "valid", "test") for label in ("cat", "dog")]


def manifest_of(*names: str, uri: str = "s3://ours/my/Pets", etags: dict[str, str] | None = None) -> Manifest:
    source = parse_uri(uri)
    objects = [
        S3Object(key=source.prefix + name, size_bytes=3, etag=f'"{(etags or {}).get(name, name)}"') for name in names
    ]
    return build_prefix_manifest(source, objects, own_bucket="ours")


def test_pictures_are_read_where_they_lie() -> None:
    dataset = manifest_of(*GOOD).dataset
    assert dataset.name == "pets"
    assert dataset.classes == ("cat", "dog")
    assert dataset.channels["train"].s3_uri == "s3://ours/my/Pets/train/"
    assert {channel.data_type for channel in dataset.channels.values()} == {"S3Prefix"}
    assert dataset.manifest_s3_uri == f"s3://ours/datasets/pets/versions/{dataset.digest[:12]}/dataset.json"
    assert dataset.warnings == ()


@pytest.mark.parametrize("name", ["val", "validation"])
def test_another_name_of_validation_stays_in_the_uri(name: str) -> None:
    dataset = manifest_of(*(file.replace("valid/", f"{name}/") for file in GOOD)).dataset
    assert dataset.channels["valid"].s3_uri == f"s3://ours/my/Pets/{name}/"


def test_a_whole_bucket_can_be_a_dataset() -> None:
    dataset = manifest_of(*GOOD, uri="s3://ours").dataset
    assert dataset.channels["test"].s3_uri == "s3://ours/test/"
    assert dataset.name == "ours"


def test_a_changed_object_changes_the_digest() -> None:
    assert manifest_of(*GOOD).dataset.digest != manifest_of(*GOOD, etags={GOOD[0]: "other"}).dataset.digest


def test_files_carry_their_key_and_etag() -> None:
    assert [(file.key, file.sha256) for file in manifest_of(*GOOD).files][:1] == [
        ("my/Pets/train/cat/1.png", "train/cat/1.png")
    ]


def test_another_bucket_is_a_warning() -> None:
    warnings = manifest_of(*GOOD, uri="s3://theirs/pets").dataset.warnings
    assert warnings == ("Found the pictures in theirs, while the roles of the foundation may read ours only",)


def test_equal_pictures_in_train_and_test_are_a_warning() -> None:
    dataset = manifest_of(*GOOD, etags={GOOD[0]: "same", GOOD[4]: "same"}).dataset
    assert dataset.warnings == (
        "Found 1 picture in more than one split, which flatters the scores: train/cat/1.png = test/cat/1.png",
    )


def test_other_objects_are_a_warning_and_hidden_ones_are_not() -> None:
    dataset = manifest_of(*GOOD, "readme.md", "train/cat/x.gif", "train/cat/.DS_Store", "train/", "train/cat/").dataset
    assert dataset.warnings == ("Found 2 objects that are no pictures in class folders: readme.md, train/cat/x.gif",)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], r"There is nothing under s3://ours/my/Pets/: check the prefix"),
        (["cat/1.png", "dog/1.png"], r"no JPEG or PNG pictures in train/<class>/…, valid/<class>/… and test/<class>"),
        (GOOD[:4], "no pictures in test"),
        ([*GOOD, "test/bird/1.png"], r"1 class missing from train \(bird\)"),
        ([name for name in GOOD if "cat" in name], r"only one class \(cat\)"),
        ([*GOOD, "train/bird/"], r"1 class folder without usable pictures \(train/bird\)"),
        ([*GOOD, "val/cat/2.png"], "more than one folder for valid, keep one"),
    ],
)
def test_what_is_not_fit_for_training_is_refused(names: list[str], said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        manifest_of(*names)


@pytest.mark.parametrize("uri", ["s3://", "s3://UPPER/x", "s3:/bucket/x", "s3://a", "https://bucket/x"])
def test_what_is_no_uri_is_refused(uri: str) -> None:
    with pytest.raises(DatasetError, match="is no S3 URI: write s3://bucket/prefix"):
        parse_uri(uri)

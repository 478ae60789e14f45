import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.aws.errors import DatasetError
from tasks.data.folders import scan


def test_a_folder_with_splits_is_read_with_its_splits(folder: Callable[..., Path]) -> None:
    root = folder(["train/cat/1.png", "valid/cat/2.PNG", "test/dog/3.jpeg"])
    found = [(image.split, image.label, image.name) for image in scan(root, "pets").images]
    assert found == [("test", "dog", "3.jpeg"), ("train", "cat", "1.png"), ("valid", "cat", "2.PNG")]


@pytest.mark.parametrize("name", ["val", "validation"])
def test_other_names_of_validation_are_understood(folder: Callable[..., Path], name: str) -> None:
    images = scan(folder(["train/cat/1.png", f"{name}/cat/2.png"]), "pets").images
    assert [image.split for image in images] == ["train", "valid"]


def test_two_folders_for_validation_are_refused(folder: Callable[..., Path]) -> None:
    root = folder(["train/cat/1.png", "val/cat/2.png", "valid/cat/2.png"])
    with pytest.raises(DatasetError, match=r"more than one folder for validation \(val, valid\)"):
        scan(root, "pets")


def test_folders_of_classes_have_no_split_yet(folder: Callable[..., Path]) -> None:
    images = scan(folder(["cat/1.png", "dog/2.png"]), "pets").images
    assert [(image.split, image.label) for image in images] == [(None, "cat"), (None, "dog")]


def test_a_class_may_be_called_test(folder: Callable[..., Path]) -> None:
    images = scan(folder(["exam/1.png", "test/2.png"]), "pets").images
    assert [image.label for image in images] == ["exam", "test"]


def test_folders_inside_a_class_belong_to_it(folder: Callable[..., Path]) -> None:
    images = scan(folder(["cat/holidays/2020/1.png", "dog/1.png"]), "pets").images
    assert [(image.label, image.name) for image in images] == [("cat", "holidays/2020/1.png"), ("dog", "1.png")]


def test_files_of_the_system_do_not_count(folder: Callable[..., Path]) -> None:
    names = [".DS_Store", "cat/.DS_Store", "cat/Thumbs.db", "cat/._1.png", ".git/x.png", "__MACOSX/x.png"]
    staged = scan(folder(["cat/1.png", "dog/1.png", *names]), "pets")
    assert len(staged.images) == 2
    assert staged.unsupported_files == ()
    assert staged.empty_folders == ()


def test_what_is_left_out_is_named(folder: Callable[..., Path]) -> None:
    files = [
        "train/cat/1.png",
        "train/cat/notes.txt",
        "train/loose.jpg",
        "valid/cat/1.png",
        "drafts/x/1.png",
        "top.png",
    ]
    staged = scan(folder(files), "pets")
    assert staged.unsupported_files == ("train/cat/notes.txt",)
    assert staged.stray_images == ("top.png", "train/loose.jpg")
    assert staged.ignored_folders == ("drafts",)


def test_a_class_folder_without_images_is_named(folder: Callable[..., Path]) -> None:
    root = folder(["train/cat/1.png", "valid/cat/readme.txt"])
    assert scan(root, "pets").empty_folders == ("valid/cat",)


def test_a_path_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere does not exist: give 'digits', 'dog-breeds', an s3:// URI, or a"):
        scan(tmp_path / "nowhere", "nowhere")


def test_a_file_is_no_dataset(folder: Callable[..., Path]) -> None:
    with pytest.raises(DatasetError, match="is a file"):
        scan(folder(["cat/1.png"]) / "cat" / "1.png", "pets")


def test_a_folder_without_folders_is_refused(folder: Callable[..., Path]) -> None:
    with pytest.raises(DatasetError, match="has no folders: arrange its pictures as train/valid/test"):
        scan(folder(["1.png", "2.png"]), "pets")


def test_a_class_name_that_is_no_folder_name_everywhere_is_refused(folder: Callable[..., Path]) -> None:
    with pytest.raises(DatasetError, match=r"1 class name with control characters or backslashes \('c\\nat'\)"):
        scan(folder(["c\nat/1.png", "dog/1.png"]), "pets")


def test_names_are_spelled_the_same_on_every_system(folder: Callable[..., Path]) -> None:
    """MacOS decomposes umlauts; the digest of the dataset must not depend on who uploads."""
    staged = scan(folder(["Bär/gru\u0308n.png".replace("ä", "a\u0308"), "dog/1.png"]), "pets")
    assert next((image.label, image.name) for image in staged.images) == ("B\u00e4r", "gr\u00fcn.png")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets file names be arbitrary bytes")
def test_a_file_name_that_is_no_text_is_still_read(folder: Callable[..., Path], picture: Callable[..., bytes]) -> None:
    root = folder(["cat/1.png", "dog/1.png"])
    Path(os.fsdecode(bytes(root) + b"/cat/\xff.png")).write_bytes(picture(7))
    assert "\ufffd.png" in [image.name for image in scan(root, "pets").images]

import hashlib
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.aws.errors import DatasetError
from tasks.contracts import DatasetSpec
from tasks.data.folders import scan
from tasks.data.inspections import inspect, why_unfit
from tasks.data.pictures import InspectedDataset

Folder = Callable[..., Path]


def inspected(root: Path, **spec: float) -> InspectedDataset:
    return inspect(scan(root, "pets"), DatasetSpec.model_validate({"source": str(root), **spec}))


def refusal(root: Path) -> str:
    with pytest.raises(DatasetError) as caught:
        inspected(root)
    return str(caught.value)


def test_a_sound_dataset_has_no_warnings(folder: Folder, good_files: list[str]) -> None:
    found = inspected(folder(good_files))
    assert found.warnings == ()
    assert found.classes == ("cat", "dog")
    assert len(found.images) == 12


def test_the_digest_is_that_of_the_file(folder: Folder, good_files: list[str]) -> None:
    for image in inspected(folder(good_files)).images:
        assert image.sha256 == hashlib.sha256(image.path.read_bytes()).hexdigest()
        assert image.size_bytes == image.path.stat().st_size


# --- errors ---------------------------------------------------------------------------------------------------------


def test_a_class_folder_without_images_is_an_error(folder: Folder, good_files: list[str]) -> None:
    root = folder(good_files)
    (root / "train" / "bird").mkdir()
    assert "1 class folder without usable pictures (train/bird), add pictures or remove the folder" in refusal(root)


def test_one_class_is_an_error(folder: Folder) -> None:
    said = refusal(folder(["train/cat/1.png", "valid/cat/2.png", "test/cat/3.png"]))
    assert "only one class (cat), a classifier needs at least two" in said


def test_a_class_missing_from_train_is_an_error(folder: Folder, good_files: list[str]) -> None:
    said = refusal(folder([*good_files, "test/bird/1.png", "valid/fox/1.png"]))
    assert "2 classes missing from train (bird, fox)" in said


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_a_split_without_images_is_an_error(folder: Folder, good_files: list[str], split: str) -> None:
    said = refusal(folder([file for file in good_files if not file.startswith(split)]))
    assert f"no pictures in {split}, every split needs some" in said


def test_no_images_at_all_is_one_error(folder: Folder) -> None:
    assert "2 class folders without usable pictures (cat, dog)" in refusal(folder({"cat/a.txt": b"", "dog/a.txt": b""}))


def test_a_class_of_corrupt_images_only_is_an_error(folder: Folder, good_files: list[str]) -> None:
    root = folder(good_files)
    for file in (root / "train" / "cat").iterdir():
        file.write_bytes(b"broken")
    assert "(train/cat has only unreadable ones)" in refusal(root)


def test_every_problem_is_named_in_one_sentence(folder: Folder) -> None:
    root = folder(["train/cat/1.png", "test/dog/1.png"])
    (root / "valid" / "cow").mkdir(parents=True)
    said = refusal(root)
    assert str(root) in said
    for problem in ("valid/cow", "no pictures in valid", "missing from train (dog)", "Nothing was uploaded"):
        assert problem in said
    assert "\n" not in said


def test_many_names_are_cut_short(folder: Folder, good_files: list[str]) -> None:
    said = refusal(folder([*good_files, *(f"test/bird-{i}/1.png" for i in range(10))]))
    assert "10 classes missing from train (bird-0, bird-1, bird-2 and 7 more)" in said


# --- warnings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_truncated_image_is_named_and_left_out(
    folder: Folder, good_files: list[str], picture: Callable[..., bytes], kind: str
) -> None:
    root = folder(good_files)
    body = picture(1, kind=kind, size=64)
    (root / "train" / "cat" / f"cut.{kind.lower()}").write_bytes(body[: len(body) * 2 // 3])
    found = inspected(root)
    assert len(found.images) == 12
    assert found.warnings[0].startswith("Left out 1 picture that cannot be decoded: train/cat/cut.")


def test_a_text_file_called_jpg_is_left_out(folder: Folder, good_files: list[str]) -> None:
    root = folder(good_files)
    (root / "test" / "dog" / "notes.jpg").write_text("not a picture")
    assert inspected(root).warnings == (
        "Left out 1 picture that cannot be decoded: test/dog/notes.jpg (neither JPEG nor PNG)",
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [9_500, 20_000])
def test_a_picture_that_would_eat_the_memory_is_left_out(picture: Callable[..., bytes], side: int) -> None:
    body = bytearray(picture(1))
    body[16:24] = struct.pack(">II", side, side)
    body[29:33] = struct.pack(">I", zlib.crc32(body[12:29]))
    assert "too many" in why_unfit(bytes(body))


def test_a_picture_that_cannot_be_opened_is_left_out(folder: Folder, good_files: list[str]) -> None:
    root = folder(good_files)
    (root / "train" / "cat" / "gone.png").symlink_to(root / "nowhere.png")
    assert inspected(root).warnings == (
        "Left out 1 picture that cannot be decoded: train/cat/gone.png (No such file or directory)",
    )


def test_any_broken_bytes_are_answered_with_a_reason(picture: Callable[..., bytes]) -> None:
    """Decoders raise whatever they stumble over; none of it may end the inspection."""
    dice = random.Random(0)  # noqa: S311 - the same bytes every time
    for kind in ("PNG", "JPEG"):
        body = bytearray(picture(1, kind=kind, size=32))
        for _ in range(300):
            broken = bytearray(body)
            for _ in range(8):
                broken[dice.randrange(len(broken))] = dice.randrange(256)
            assert isinstance(why_unfit(bytes(broken)), str)


def test_other_files_are_counted_and_named(folder: Folder, good_files: list[str]) -> None:
    found = inspected(folder([*good_files, "train/cat/a.webp", "train/cat/b.gif"]))
    assert found.warnings == ("Left out 2 files that are not JPEG or PNG by name: train/cat/a.webp, train/cat/b.gif",)


def test_the_same_picture_in_train_and_test_is_a_warning(
    folder: Folder, good_files: list[str], picture: Callable[..., bytes]
) -> None:
    root = folder(good_files)
    for path in ("train/cat/x.png", "test/cat/y.png"):
        (root / path).write_bytes(picture(99))
    found = inspected(root)
    assert found.warnings == (
        "Found 1 picture in more than one split, which flatters the scores: test/cat/y.png = train/cat/x.png",
    )
    assert len(found.images) == 14


def test_the_same_picture_in_two_classes_is_a_warning(
    folder: Folder, good_files: list[str], picture: Callable[..., bytes]
) -> None:
    root = folder(good_files)
    for path in ("train/cat/x.png", "train/dog/y.png"):
        (root / path).write_bytes(picture(99))
    (warning,) = inspected(root).warnings
    assert warning.startswith("Found 1 picture in more than one class, so that labels contradict each other: ")
    assert warning.endswith(": train/cat/x.png = train/dog/y.png")


def test_a_class_that_is_never_measured_is_a_warning(folder: Folder, good_files: list[str]) -> None:
    assert inspected(folder([*good_files, "train/bird/1.png"])).warnings == (
        "Found 1 class without pictures in valid: bird",
        "Found 1 class without pictures in test: bird",
    )


# --- splitting for the user -----------------------------------------------------------------------------------------


def test_folders_of_classes_are_split(folder: Folder) -> None:
    found = inspected(folder([f"{label}/{i}.png" for label in ("cat", "dog") for i in range(10)]))
    for label in ("cat", "dog"):
        splits = sorted(image.split for image in found.images if image.label == label)
        assert splits == ["test"] * 2 + ["train"] * 6 + ["valid"] * 2


def test_a_renamed_file_stays_in_its_split(folder: Folder) -> None:
    root = folder([f"{label}/{i}.png" for label in ("cat", "dog") for i in range(10)])
    before = {image.sha256: image.split for image in inspected(root).images}
    for file in list((root / "cat").iterdir()):
        file.rename(file.with_name(f"renamed-{file.name}"))
    assert {image.sha256: image.split for image in inspected(root).images} == before


def test_copies_of_a_picture_are_never_split_apart(folder: Folder, picture: Callable[..., bytes]) -> None:
    """A split of ours must not make the leak that we warn of."""
    files = {
        f"{label}/{i}-{copy}.png": picture(i + 100 * len(label))
        for label in ("cat", "horse")
        for i in range(9)
        for copy in "abc"
    }
    assert inspected(folder(files)).warnings == ()


def test_nothing_is_written_into_the_users_folder(folder: Folder, good_files: list[str]) -> None:
    root = folder(good_files)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    inspected(root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before

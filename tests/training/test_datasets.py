"""Reading pictures: what is bad is named, and only what makes learning impossible is fatal."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training import datasets
from training.datasets import Dataset, channel_statistics, find_classes, load_dataset
from training.errors import DatasetError
from training.serving.preprocessing import Resize


def load(folder: Path) -> Dataset:
    splits = {split: folder / split for split in ("train", "valid", "test")}
    return load_dataset(splits, find_classes(splits["train"]), Resize(16), workers=2)


def test_classes_are_numbered_in_the_order_of_their_names(colours: Path) -> None:
    loaded = load(colours)
    assert loaded.classes == ("blue", "green", "red")
    pictures = loaded.splits["test"]
    assert pictures.images.shape == (18, 16, 16, 3)
    assert [loaded.classes[label] for label in pictures.labels] == [file.split("/")[0] for file in pictures.files]
    # Each picture is bright in the colour that its label names.
    assert pictures.images.mean(axis=(1, 2)).argmax(axis=1).tolist() == (2 - pictures.labels).tolist()


def test_bad_files_are_named_and_the_others_keep_their_labels(colours: Path) -> None:
    folder = colours / "train" / "green"
    whole = (folder / "0.png").read_bytes()
    (folder / "0.png").write_bytes(whole[: len(whole) // 2])
    (folder / "1.png").write_text("no picture at all")
    (folder / "2.png").write_bytes(b"")
    Image.new("1", (20_000, 20_000)).save(folder / "3.png")
    (folder / ".DS_Store").touch()
    loaded = load(colours)
    reasons = {skipped.file: skipped.reason for skipped in loaded.skipped}
    assert list(reasons) == [f"train/green/{number}.png" for number in range(4)]
    assert "broken" in reasons["train/green/0.png"]
    assert "neither JPEG nor PNG" in reasons["train/green/1.png"]
    assert "64,000,000 pixels" in reasons["train/green/3.png"]
    train = loaded.splits["train"]
    assert len(train) == 32
    assert train.images.mean(axis=(1, 2)).argmax(axis=1).tolist() == (2 - train.labels).tolist()


def test_one_class_is_fatal(colours: Path) -> None:
    shutil.rmtree(colours / "train" / "red")
    shutil.rmtree(colours / "train" / "green")
    with pytest.raises(DatasetError, match="one class only, blue"):
        load(colours)


def test_no_class_folders_are_fatal(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="has no class folders"):
        find_classes(tmp_path)


def test_a_class_that_train_lacks_is_fatal(colours: Path) -> None:
    (colours / "valid" / "red").rename(colours / "valid" / "rouge")
    with pytest.raises(DatasetError, match="valid has classes that train lacks: rouge"):
        load(colours)


def test_an_empty_class_folder_in_train_is_fatal(colours: Path) -> None:
    (colours / "train" / "violet").mkdir()
    with pytest.raises(DatasetError, match="train has no readable pictures of violet"):
        load(colours)


def test_a_class_whose_files_are_all_bad_is_fatal_and_one_is_named(colours: Path) -> None:
    for path in (colours / "train" / "blue").iterdir():
        path.write_text("x")
    with pytest.raises(DatasetError, match=r"pictures of blue; 12 files could not be read, such as train/blue/0.png"):
        load(colours)


def test_a_split_without_pictures_is_fatal(colours: Path) -> None:
    shutil.rmtree(colours / "test")
    (colours / "test").mkdir()
    with pytest.raises(DatasetError, match="no readable pictures for test"):
        load(colours)


def test_pictures_beyond_the_memory_are_mapped_from_a_file(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory = load(colours)
    monkeypatch.setattr(datasets, "_free_memory_bytes", lambda: 0)
    mapped = load(colours)
    assert isinstance(mapped.splits["train"].images, np.memmap)
    assert np.array_equal(mapped.splits["train"].images, in_memory.splits["train"].images)


def test_statistics_are_those_of_all_pixels() -> None:
    images = np.random.default_rng(1).integers(0, 256, (2000, 8, 8, 3)).astype(np.uint8)
    mean, std = channel_statistics(images)
    assert mean == pytest.approx((images / 255).mean(axis=(0, 1, 2)), abs=1e-6)
    assert std == pytest.approx((images / 255).std(axis=(0, 1, 2)), abs=1e-6)


def test_pictures_of_one_colour_do_not_divide_by_zero() -> None:
    _, std = channel_statistics(np.zeros((2, 8, 8, 3), np.uint8))
    assert min(std) > 0


def test_grey_palette_and_transparent_pictures_become_rgb(colours: Path) -> None:
    folder = colours / "train" / "red"
    for number, mode in enumerate(("L", "P", "RGBA", "LA", "1")):
        Image.open(folder / f"{number}.png").convert(mode).save(folder / f"{number}.png")
    assert load(colours).skipped == []

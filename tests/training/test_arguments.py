"""The command line and SageMaker's environment: where things are, and which of the two counts."""

import json
from pathlib import Path

import pytest

from training.arguments import parse_arguments
from training.errors import ArgumentError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for split in ("train", "valid", "test"):
        (tmp_path / "data" / split).mkdir(parents=True)
    return tmp_path / "data"


def channels(data: Path) -> dict[str, str]:
    return {f"SM_CHANNEL_{split.upper()}": str(data / split) for split in ("train", "valid", "test")}


def test_by_hand_only_a_folder_is_needed(data: Path) -> None:
    told = parse_arguments(["--data", str(data)], {})
    assert told.splits["valid"] == data / "valid"
    assert told.model_dir == told.output_data_dir == Path("TrainedModels")
    assert told.checkpoint_dir is None or told.checkpoint_dir == Path("/opt/ml/checkpoints")


def test_in_a_job_nothing_is_needed(data: Path, tmp_path: Path) -> None:
    (tmp_path / "ml" / "checkpoints").mkdir(parents=True)
    environ = {"SM_MODEL_DIR": "/m", "SM_OUTPUT_DATA_DIR": "/o", "SAGEMAKER_BASE_DIR": str(tmp_path / "ml")}
    told = parse_arguments([], channels(data) | environ)
    assert told.splits["test"] == data / "test"
    assert (told.model_dir, told.output_data_dir) == (Path("/m"), Path("/o"))
    assert told.checkpoint_dir == tmp_path / "ml" / "checkpoints"


def test_sagemakers_hyperparameters_are_used_where_no_flag_is_given(data: Path) -> None:
    held = {"epochs": 7, "learning_rate": "0.5", "architecture": "resnet18", "_tuning_objective_metric": "valid_loss"}
    told = parse_arguments(["--epochs", "9"], channels(data) | {"SM_HPS": json.dumps(held)}).hyperparameters
    assert (told.epochs, told.learning_rate, told.architecture) == (9, 0.5, "resnet18")


def test_an_unknown_hyperparameter_is_refused_and_not_ignored(data: Path) -> None:
    with pytest.raises(ArgumentError, match="unknown hyperparameters: lerning_rate"):
        parse_arguments([], channels(data) | {"SM_HPS": json.dumps({"lerning_rate": 0.1})})


def test_an_unknown_flag_is_refused(data: Path) -> None:
    with pytest.raises(ArgumentError, match="--lerning_rate"):
        parse_arguments(["--data", str(data), "--lerning_rate", "1"], {})


def test_a_flag_for_one_split_counts_more_than_the_folder_of_all(data: Path, tmp_path: Path) -> None:
    assert parse_arguments(["--data", str(data), "--test", str(tmp_path)], {}).splits["test"] == tmp_path


def test_without_pictures_the_sentence_says_how_to_give_some() -> None:
    with pytest.raises(ArgumentError, match="give --data FOLDER or --train FOLDER, or set SM_CHANNEL_TRAIN"):
        parse_arguments([], {})


def test_a_folder_that_does_not_exist_is_named(data: Path) -> None:
    with pytest.raises(ArgumentError, match=f"valid pictures does not exist: {data}/nowhere"):
        parse_arguments(["--data", str(data), "--valid", f"{data}/nowhere"], {})


def test_the_weights_channel_is_its_only_file(data: Path, tmp_path: Path) -> None:
    channel = tmp_path / "weights"
    channel.mkdir()
    (channel / "resnet.pth").touch()
    environ = channels(data) | {"SM_CHANNEL_WEIGHTS": str(channel)}
    assert parse_arguments(["--weights", "channel"], environ).weights_file == channel / "resnet.pth"
    (channel / "other.pth").touch()
    with pytest.raises(ArgumentError, match=r"exactly one file in .*, there are 2"):
        parse_arguments(["--weights", "channel"], environ)


def test_weights_that_are_nothing_known_are_refused(data: Path) -> None:
    with pytest.raises(ArgumentError, match="weights=imagnet is none of none, imagenet, channel, nor a file"):
        parse_arguments(["--data", str(data), "--weights", "imagnet"], {})


# --- one process for each GPU ---------------------------------------------------------------------------------------


@pytest.fixture
def two_gpus(tmp_path: Path) -> str:
    """A PATH with a driver's program that lists two GPUs, one of them cut into slices."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "nvidia-smi"
    lines = (
        "GPU 0: NVIDIA A10G (UUID: GPU-1)",
        "GPU 1: NVIDIA A10G (UUID: GPU-2)",
        "  MIG 1g.5gb Device 0: (UUID: MIG-3)",
    )
    program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    program.chmod(0o700)
    return str(program.parent)


@pytest.mark.parametrize(
    ("more", "processes"),
    [
        ({}, 2),
        ({"SM_NUM_GPUS": "4"}, 4),
        ({"SM_NUM_GPUS": "0"}, 1),
        ({"CUDA_VISIBLE_DEVICES": "1"}, 1),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2"}, 2),
        ({"CUDA_VISIBLE_DEVICES": "0,-1,1"}, 1),
        ({"CUDA_VISIBLE_DEVICES": ""}, 1),
    ],
)
def test_by_hand_too_there_is_one_process_for_each_gpu(
    data: Path, two_gpus: str, more: dict[str, str], processes: int
) -> None:
    """On a plain machine nobody sets SM_NUM_GPUS; what CUDA is not to see does not count."""
    told = parse_arguments(["--data", str(data)], {"PATH": two_gpus} | more)
    assert told.cluster.processes_per_host == processes


@pytest.mark.parametrize("program", [None, "#!/bin/sh\necho 'No devices were found'\nexit 6\n", "not a program"])
def test_without_a_working_driver_there_is_one_process(data: Path, tmp_path: Path, program: str | None) -> None:
    if program:
        (tmp_path / "nvidia-smi").write_text(program)
        (tmp_path / "nvidia-smi").chmod(0o700)
    assert parse_arguments(["--data", str(data)], {"PATH": str(tmp_path)}).cluster.processes_per_host == 1


def test_a_flag_counts_more_than_the_gpus(data: Path, two_gpus: str) -> None:
    told = parse_arguments(["--data", str(data), "--processes-per-instance", "3"], {"PATH": two_gpus})
    assert told.cluster.processes_per_host == 3

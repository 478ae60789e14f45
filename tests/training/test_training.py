"""The training itself: it learns, repeats itself exactly, survives being killed, and measures honestly."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from training.architectures import build_network
from training.checkpoints import Checkpoints
from training.datasets import Pictures, find_classes, load_dataset
from training.errors import DivergedError, WeightsError
from training.evaluation import Normalisation, evaluate
from training.seeds import seed_everything
from training.serving.preprocessing import Resize

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# The expressions of the training job's metric definitions, as SageMaker applies them to every line.
METRICS = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "test_loss", "test_accuracy")
RESNET = ("--architecture", "resnet18", "--image_size", 32, "--epochs", 1, "--batch_size", 8)


def metric_values(stdout: str, name: str) -> list[float]:
    return [float(value) for value in re.findall(rf"{name}=([-+0-9.eE]+)", stdout)]


def without_seconds(epochs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in epochs]


def load_colours(colours: Path) -> dict[str, Pictures]:
    folders = {split: colours / split for split in ("train", "valid", "test")}
    return load_dataset(folders, find_classes(folders["train"]), Resize(16), 1).splits


# --- the default: digits, small_cnn ---------------------------------------------------------------------------------


def test_the_digits_are_learnt(trained: dict[str, Any]) -> None:
    assert trained["report"]["test"]["accuracy"] >= 0.985


def test_every_metric_of_every_epoch_is_printed_for_sagemaker_to_read(trained: dict[str, Any]) -> None:
    stdout, epochs = trained["stdout"], trained["report"]["epochs"]
    for name in METRICS[:2]:
        assert metric_values(stdout, name) == pytest.approx([epoch[name] for epoch in epochs], abs=1e-6)
    for name in METRICS[2:4]:
        assert metric_values(stdout, name)[:-1] == pytest.approx([epoch[name] for epoch in epochs], abs=1e-6)
    assert metric_values(stdout, "test_accuracy") == pytest.approx([trained["report"]["test"]["accuracy"]], abs=1e-6)
    assert metric_values(stdout, "test_loss") == pytest.approx([trained["report"]["test"]["loss"]], abs=1e-6)


def test_the_last_validation_printed_is_that_of_the_weights_kept(trained: dict[str, Any]) -> None:
    report = trained["report"]
    best = report["epochs"][report["best_epoch"] - 1]
    assert best["valid_accuracy"] == max(epoch["valid_accuracy"] for epoch in report["epochs"])
    for name in ("valid_loss", "valid_accuracy"):
        assert metric_values(trained["stdout"], name)[-1] == pytest.approx(best[name], abs=1e-6)


def test_the_report_counts_what_was_learnt_from_and_measured_on(trained: dict[str, Any]) -> None:
    report = trained["report"]
    assert report["counts"] == {"train": 1078, "valid": 359, "test": 360}
    confusion = np.asarray(report["test"]["confusion"])
    assert confusion.sum() == len(report["test"]["predictions"]) == 360
    assert confusion.trace() / 360 == pytest.approx(report["test"]["accuracy"])
    right = [one["label"] == one["predicted"] for one in report["test"]["predictions"]]
    assert np.mean(right) == pytest.approx(report["test"]["accuracy"])
    assert {one["file"].split("/")[0] for one in report["test"]["predictions"]} == set(report["classes"])
    assert set(report["seconds"]) == {"startup", "load_data", "training", "evaluation", "export"}


def test_the_report_is_what_the_flows_read(trained: dict[str, Any]) -> None:
    from tasks.contracts import TrainingReport

    assert TrainingReport.model_validate(trained["report"]).best_epoch == trained["report"]["best_epoch"]


def test_device_and_counts_are_said_first(trained: dict[str, Any]) -> None:
    assert re.match(
        r"Training on c(pu|uda) .*: train 1078, valid 359, test 360 pictures of 10 classes\n", trained["stdout"]
    ), trained["stdout"]


def test_nothing_is_said_on_stderr(trained: dict[str, Any]) -> None:
    assert trained["stderr"] == ""


# --- as a job, as a script ------------------------------------------------------------------------------------------


def test_runs_as_sagemakers_script_mode_runs_it(many_colours: Path, tmp_path: Path, run_train: Any) -> None:
    base = tmp_path / "ml"
    environ = {f"SM_CHANNEL_{split.upper()}": str(many_colours / split) for split in ("train", "valid", "test")}
    environ |= {"SM_MODEL_DIR": str(base / "model"), "SM_OUTPUT_DATA_DIR": str(base / "output" / "data")}
    environ |= {"SM_HPS": json.dumps({"epochs": 1, "image_size": 16}), "SAGEMAKER_BASE_DIR": str(base)}
    (base / "checkpoints").mkdir(parents=True)
    done = run_train("--epochs", "2", "--image_size", "16", cwd=tmp_path, **environ)
    assert done.returncode == 0, done.stderr
    report = json.loads((base / "output" / "data" / "report.json").read_text())
    assert report["hyperparameters"]["epochs"] == 2
    assert (base / "model" / "model.onnx").exists()
    assert (base / "checkpoints" / "checkpoint.pt").exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--epochs", "0"], "error: epochs=0 is out of range: it must be at least 1 and at most 1000\n"),
        (["--data", "/nowhere"], "error: the folder of train pictures does not exist: /nowhere/train\n"),
    ],
)
def test_a_wrong_flag_ends_with_one_sentence(flags: list[str], sentence: str, run_train: Any) -> None:
    done = run_train(*flags)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", sentence)


def test_a_bad_dataset_ends_with_one_sentence(tmp_path: Path, run_train: Any) -> None:
    for split in ("train", "valid", "test"):
        (tmp_path / split / "only").mkdir(parents=True)
    done = run_train("--data", tmp_path, "--model_dir", tmp_path / "model")
    assert done.returncode == 1
    assert re.fullmatch(r"error: .* has one class only, only: there is nothing to tell apart\n", done.stderr)
    assert not (tmp_path / "model").exists()


def test_help_and_small_cnn_import_nothing_they_do_not_need() -> None:
    """Imports are most of a small trial: torch takes a second or more, torchvision two and a half."""
    code = (
        "import sys, training.train, training.arguments; assert 'torch' not in sys.modules;"
        "import training.job; from training.architectures import build_network;"
        "build_network('small_cnn', 2, 'all'); assert 'torchvision' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_training_imports_no_compiler(some_colours: Path, tmp_path: Path) -> None:
    """It would take two seconds of every training, and nothing is compiled."""
    arguments = ["--data", str(some_colours), "--epochs", "1", "--image-size", "16", "--model-dir", str(tmp_path)]
    code = (
        "import sys; from training.arguments import parse_arguments; from training.job import run_job;"
        "run_job(parse_arguments(sys.argv[1:], {}), 0.0);"
        "assert not {'torch._dynamo', 'sympy', 'torch.distributed.nn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, check=True)


# --- repeatable, resumable ------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_model(colours: Path, job: Any) -> None:
    flags = ("--epochs", 2, "--image_size", 16, "--batch_size", 8)
    one, same = job(colours, *flags, name="one"), job(colours, *flags, name="same")
    other = job(colours, *flags, "--seed", 1, name="other")
    assert one["model_version"] == same["model_version"] != other["model_version"]
    assert without_seconds(one["epochs"]) == without_seconds(same["epochs"])


def test_a_killed_training_goes_on_and_ends_as_if_it_had_not_been(
    many_colours: Path, tmp_path: Path, run_train: Any, job: Any
) -> None:
    common = ("--epochs", 5, "--patience", 5, "--batch_size", 8, "--image_size", 16)
    checkpoints, model = tmp_path / "checkpoints", tmp_path / "model"
    flags = (
        "--data",
        many_colours,
        *common,
        "--model_dir",
        model,
        "--checkpoint_dir",
        checkpoints,
        "--checkpoint_seconds",
        0,
    )
    command = [sys.executable, str(ROOT / "training" / "train.py"), *map(str, flags)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        next(line for line in killed.stdout if line.startswith("epoch=2 "))
        os.kill(killed.pid, signal.SIGKILL)
    assert not (model / "model.json").exists()
    resumed = run_train(*flags)
    assert "Resuming from the checkpoint: epoch" in resumed.stdout, resumed.stderr
    one, other = json.loads((model / "report.json").read_text()), job(many_colours, *common, name="uninterrupted")
    assert one["resumed_from_epoch"] >= 2
    assert without_seconds(one["epochs"]) == without_seconds(other["epochs"])
    assert one["model_version"] == other["model_version"]


def test_a_training_interrupted_between_two_steps_goes_on_exactly_there(
    colours: Path, tmp_path: Path, job: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("--epochs", 3, "--image_size", 16, "--batch_size", 8)
    flags = (*common, "--checkpoint_dir", tmp_path / "checkpoints", "--checkpoint_seconds", 0)
    saved: list[dict[str, Any]] = []

    def save_eight_times(checkpoints: Checkpoints, state: dict[str, Any]) -> None:
        save(checkpoints, state)
        saved.append(state)
        if len(saved) == 8:
            raise KeyboardInterrupt

    save = Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", save_eight_times)
    with pytest.raises(KeyboardInterrupt):
        job(colours, *flags)
    monkeypatch.setattr(Checkpoints, "save", save)
    resumed, uninterrupted = job(colours, *flags), job(colours, *common, name="uninterrupted")
    assert "Resuming from the checkpoint: epoch 2, 2 batches of it are done" in capsys.readouterr().out
    assert without_seconds(resumed["epochs"]) == without_seconds(uninterrupted["epochs"])
    assert resumed["model_version"] == uninterrupted["model_version"]


def test_a_checkpoint_of_other_hyperparameters_is_ignored_with_a_sentence(
    colours: Path, tmp_path: Path, job: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--image_size", 16, "--epochs", 1, "--checkpoint_dir", tmp_path / "checkpoints")
    job(colours, *flags)
    report = job(colours, *flags, "--learning_rate", 0.001)
    assert report["resumed_from_epoch"] is None
    assert "is of other hyperparameters or data: starting afresh" in capsys.readouterr().out


def test_half_a_checkpoint_is_ignored_with_a_sentence(
    colours: Path, tmp_path: Path, job: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"PK\x03\x04 and no more")
    job(colours, "--image_size", 16, "--epochs", 1, "--checkpoint_dir", tmp_path)
    assert "cannot be read" in capsys.readouterr().out


# --- honest measurement ---------------------------------------------------------------------------------------------


def test_metrics_do_not_depend_on_the_batch_size(colours: Path) -> None:
    """The practice this replaces divided the loss by the number of batches: batch size alone decided the winner."""
    pictures = load_colours(colours)["train"]
    seed_everything(1)
    network = build_network("small_cnn", 3, "all")
    normalisation = Normalisation((0.5,) * 3, (0.5,) * 3)
    outcomes = [evaluate(network, pictures, normalisation, size, torch.device("cpu")) for size in (1, 7, 36)]
    for loss, accuracy, probabilities in outcomes[1:]:
        assert loss == pytest.approx(outcomes[0][0], rel=1e-5)
        assert accuracy == outcomes[0][1]
        assert np.allclose(probabilities, outcomes[0][2], atol=1e-6)


def test_training_ends_early_and_keeps_the_best_weights_not_the_last(colours: Path, tmp_path: Path, job: Any) -> None:
    wild = ("--learning_rate", 0.5, "--augmentation", 1, "--epochs", 60, "--patience", 2)
    report = job(colours, *wild, "--image_size", 16, "--batch_size", 8)
    assert report["stopped_early"]
    assert len(report["epochs"]) == report["best_epoch"] + 2
    network = build_network("small_cnn", 3, "all")
    network.module.load_state_dict(load_file(tmp_path / "model" / "model.safetensors"))
    model = json.loads((tmp_path / "model" / "model.json").read_text())
    normalisation = Normalisation(tuple(model["mean"]), tuple(model["std"]))
    loss, *_ = evaluate(network, load_colours(colours)["valid"], normalisation, 64, torch.device("cpu"))
    assert loss == pytest.approx(report["epochs"][report["best_epoch"] - 1]["valid_loss"], rel=1e-4)


def test_a_last_batch_of_one_picture_is_no_trouble(colours: Path, job: Any) -> None:
    """BatchNorm refuses a single value per channel: 36 pictures in batches of 35 would end in such a batch."""
    report = job(colours, *RESNET[:-1], 35)
    assert len(report["epochs"]) == 1


def test_a_loss_that_runs_away_at_once_is_an_error(colours: Path, job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.fitting.means_of", lambda _: (float("nan"), 0.0))
    with pytest.raises(DivergedError, match="choose a lower learning_rate"):
        job(colours, "--epochs", 1, "--image_size", 16)


# --- backbones and weights ------------------------------------------------------------------------------------------


def test_a_torchvision_network_is_trained_from_nothing(colours: Path, job: Any) -> None:
    assert job(colours, *RESNET)["hyperparameters"]["architecture"] == "resnet18"


@pytest.mark.parametrize("architecture", ["mobilenet_v3_small", "efficientnet_b0", "convnext_tiny", "resnet50"])
def test_the_head_is_the_last_layer_of_every_network(architecture: str) -> None:
    with torch.device("meta"):
        network = build_network(architecture, 7, "head")
    assert isinstance(network.head, torch.nn.Linear)
    assert network.head.out_features == 7
    trained = [name for name, one in network.module.named_parameters() if one.requires_grad]
    assert trained == [f"{network.head_name}.weight", f"{network.head_name}.bias"]


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a resnet18 that knows 1000 classes, as torchvision publishes them."""
    from torchvision.models import resnet18

    path = tmp_path_factory.mktemp("staged") / "resnet18.pth"
    torch.manual_seed(0)
    torch.save(resnet18().state_dict(), path)
    return path


def test_a_frozen_backbone_does_not_change_at_all(
    colours: Path, tmp_path: Path, staged: Path, job: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even the statistics of its BatchNorm layers, which change without any gradient."""
    job(colours, *RESNET, "--weights", staged, "--trainable", "head")
    assert "The weights know 1000 classes, this dataset has 3: the head starts fresh" in capsys.readouterr().out
    before, after = torch.load(staged, weights_only=True), load_file(tmp_path / "model" / "model.safetensors")
    backbone = [name for name in before if not name.startswith("fc.")]
    assert len(backbone) > 100
    assert all(torch.equal(before[name], after[name]) for name in backbone)


def test_staged_weights_bring_their_own_normalisation(colours: Path, tmp_path: Path, staged: Path, job: Any) -> None:
    job(colours, *RESNET, "--weights", staged)
    model = json.loads((tmp_path / "model" / "model.json").read_text())
    assert model["mean"] == [0.485, 0.456, 0.406]
    assert model["resize"] == {"crop": 0.875, "interpolation": "bilinear"}


def test_a_trained_package_can_be_trained_further(
    trained: dict[str, Any], digits: Path, tmp_path: Path, job: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    before = trained["package"] / "model.safetensors"
    report = job(digits, "--weights", before, "--epochs", 1, "--trainable", "head", "--learning_rate", 0.0001)
    assert "The head starts from the weights too" in capsys.readouterr().out
    assert report["test"]["accuracy"] >= 0.985
    models = [json.loads((folder / "model.json").read_text()) for folder in (trained["package"], tmp_path / "model")]
    assert models[0]["mean"] == models[1]["mean"]


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("pwned",))


def test_a_pickle_is_never_executed(colours: Path, tmp_path: Path, job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"fc.weight": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match=r"evil\.pth cannot be read as tensors alone"):
        job(colours, *RESNET, "--weights", tmp_path / "evil.pth")
    assert not (tmp_path / "pwned").exists()


def test_weights_that_describe_themselves_wrongly_are_refused(colours: Path, tmp_path: Path, job: Any) -> None:
    save_file({"conv1.weight": torch.zeros(3)}, tmp_path / "odd.safetensors", metadata={"model": "{}"})
    with pytest.raises(WeightsError, match="what cannot be understood: KeyError"):
        job(colours, *RESNET, "--weights", tmp_path / "odd.safetensors")


def test_weights_of_another_network_are_refused(colours: Path, tmp_path: Path, job: Any) -> None:
    save_file({"conv1.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"another network's: .* tensors are missing and 1 do not fit"):
        job(colours, *RESNET, "--weights", tmp_path / "other.safetensors")

"""One training from pictures to model package."""

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch

from training.architectures import Network, build_network, mirrors
from training.arguments import Arguments
from training.checkpoints import Checkpoints, fingerprint_of
from training.console import say, say_best
from training.datasets import Dataset, channel_statistics, find_classes, load_dataset
from training.evaluation import Normalisation, describe_test, evaluate
from training.files import write_json
from training.fitting import Fitted, Recipe, fit
from training.model_package import Description, write_package
from training.report import Report, TestEvaluation
from training.seeds import seed_everything
from training.weights import StartingWeights, load_into, read_starting_weights

_SKIPPED_SHOWN = 20


@dataclass(frozen=True, slots=True)
class _Materials:
    """What a training starts with, all read and checked."""

    arguments: Arguments
    dataset: Dataset
    weights: StartingWeights
    recipe: Recipe


class _Stopwatch:
    """Seconds by phase."""

    def __init__(self, startup_seconds: float) -> None:
        self.seconds = {"startup": startup_seconds}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - began


def run_job(arguments: Arguments, startup_seconds: float) -> Report:
    """Load, train, evaluate once on test, and write model package and report.

    Raises:
        TrainingError: The pictures or the weights are not fit for it, or the loss ran away.
    """
    watch = _Stopwatch(startup_seconds)
    with watch.phase("load_data"):
        materials = _prepare(arguments)
    _say_start(materials)
    with watch.phase("training"):
        network = _network(materials)
        fitted = _fit(network, materials)
    say_best(fitted.best)
    with watch.phase("evaluation"):
        test = _test(network, materials)
    say(f"test_loss={test.loss:.6f} test_accuracy={test.accuracy:.6f}")
    with watch.phase("export"):
        version = write_package(arguments.model_dir, network.module, _description(materials, fitted, test))
    report = _report(materials, fitted, test, version, watch.seconds)
    write_json(arguments.output_data_dir / "report.json", asdict(report))
    return report


def _prepare(arguments: Arguments) -> _Materials:
    chosen = arguments.hyperparameters
    classes = find_classes(arguments.splits["train"])
    weights = read_starting_weights(chosen, arguments.weights_file)
    dataset = load_dataset(arguments.splits, classes, weights.preprocessing.resize, arguments.workers)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recipe = Recipe(chosen, _normalisation(weights, dataset), mirrors(chosen.architecture), device)
    return _Materials(arguments, dataset, weights, recipe)


def _normalisation(weights: StartingWeights, dataset: Dataset) -> Normalisation:
    """Return what the weights demand; where nothing does, what the training pictures are like."""
    if weights.preprocessing.mean is not None and weights.preprocessing.std is not None:
        return Normalisation(weights.preprocessing.mean, weights.preprocessing.std)
    return Normalisation(*channel_statistics(dataset.splits["train"].images))


def _network(materials: _Materials) -> Network:
    chosen, classes = materials.recipe.chosen, materials.dataset.classes
    seed_everything(chosen.seed, "weights")
    network = build_network(chosen.architecture, len(classes), chosen.trainable)
    if materials.weights.tensors:
        say(load_into(network, materials.weights, classes))
    network.module.to(materials.recipe.device)
    # Pictures lie in memory with their colours last; a network in that order is a third faster on a processor.
    network.module.to(memory_format=torch.channels_last)
    return network


def _fit(network: Network, materials: _Materials) -> Fitted:
    arguments, dataset = materials.arguments, materials.dataset
    files = {split: pictures.files for split, pictures in dataset.splits.items()}
    fingerprint = fingerprint_of(asdict(arguments.hyperparameters), dataset.classes, files)
    checkpoints = Checkpoints(arguments.checkpoint_dir, arguments.checkpoint_seconds, fingerprint)
    return fit(network, dataset.splits["train"], dataset.splits["valid"], materials.recipe, checkpoints)


def _test(network: Network, materials: _Materials) -> TestEvaluation:
    pictures, recipe = materials.dataset.splits["test"], materials.recipe
    outcome = evaluate(network, pictures, recipe.normalisation, recipe.chosen.batch_size, recipe.device)
    return describe_test(pictures, materials.dataset.classes, *outcome)


def _description(materials: _Materials, fitted: Fitted, test: TestEvaluation) -> Description:
    return Description(
        architecture=materials.recipe.chosen.architecture,
        classes=materials.dataset.classes,
        resize=materials.weights.preprocessing.resize,
        normalisation=materials.recipe.normalisation,
        metrics={
            "valid_loss": fitted.best.valid_loss,
            "valid_accuracy": fitted.best.valid_accuracy,
            "test_loss": test.loss,
            "test_accuracy": test.accuracy,
        },
    )


def _report(
    materials: _Materials, fitted: Fitted, test: TestEvaluation, version: str, seconds: dict[str, float]
) -> Report:
    dataset = materials.dataset
    counts = {split: len(pictures) for split, pictures in dataset.splits.items()}
    return Report(
        classes=list(dataset.classes),
        hyperparameters=asdict(materials.recipe.chosen),
        device=_device_name(materials.recipe.device),
        torch_version=torch.__version__,
        model_version=version,
        counts=counts,
        skipped_files=list(dataset.skipped),
        epochs=list(fitted.epochs),
        best_epoch=fitted.best.epoch,
        stopped_early=fitted.stopped_early,
        resumed_from_epoch=fitted.resumed_from_epoch,
        test=test,
        seconds=seconds,
        images_per_second=counts["train"] * len(fitted.epochs) / sum(epoch.seconds for epoch in fitted.epochs),
    )


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name()})"
    return f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"


def _say_start(materials: _Materials) -> None:
    dataset = materials.dataset
    counts = ", ".join(f"{split} {len(pictures)}" for split, pictures in dataset.splits.items())
    device = _device_name(materials.recipe.device)
    say(f"Training on {device}: {counts} pictures of {len(dataset.classes)} classes")
    for skipped in dataset.skipped[:_SKIPPED_SHOWN]:
        say(f"Skipped {skipped.file}: {skipped.reason}")
    if len(dataset.skipped) > _SKIPPED_SHOWN:
        say(f"Skipped {len(dataset.skipped)} files in all; report.json names them")

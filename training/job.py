"""One training from pictures to model package."""

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

import torch

from training.architectures import Network, build_network, mirrors
from training.arguments import Arguments
from training.batch_norm import normalise_globally
from training.checkpoints import Checkpoints, fingerprint_of
from training.console import say, say_best
from training.datasets import Dataset, channel_statistics, find_classes, load_dataset
from training.errors import RankError
from training.evaluation import Normalisation, describe_test, evaluate
from training.files import write_json
from training.fitting import Fitted, Recipe, fit
from training.model_package import Description, weights_digest, write_package
from training.ranks import Ranks, joined
from training.report import RanksReport, Report, TestEvaluation
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

    @property
    def ranks(self) -> Ranks:
        """Return all that train together."""
        return self.recipe.ranks


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a training came to."""

    fitted: Fitted
    test: TestEvaluation
    weights_digests: list[str]


class _Stopwatch:
    """Seconds by phase."""

    def __init__(self, startup_seconds: float) -> None:
        self.seconds = {"startup": startup_seconds}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - began


def run_job(arguments: Arguments, startup_seconds: float) -> None:
    """Load, train, evaluate once on test, and write model package and report: together with the other ranks.

    Rank 0 alone writes, and only after all ranks hold the same weights.

    Raises:
        TrainingError: The pictures or the weights are not fit for it, the loss ran away, or a rank is lost.
    """
    watch = _Stopwatch(startup_seconds)
    with joined(arguments.cluster) as ranks:
        with watch.phase("load_data"):
            materials = _prepare(arguments, ranks)
        _say_start(materials)
        with watch.phase("training"):
            network = _network(materials)
            fitted = _fit(network, materials)
            digests = _agreed_digests(network, ranks)
        with watch.phase("evaluation"):
            test = _test(network, materials)
        if ranks.first:
            _write(materials, network, _Outcome(fitted, test, digests), watch)


def _write(materials: _Materials, network: Network, outcome: _Outcome, watch: _Stopwatch) -> None:
    """Print what the kept weights are worth, and write package and report."""
    arguments = materials.arguments
    say_best(outcome.fitted.best)
    say(f"test_loss={outcome.test.loss:.6f} test_accuracy={outcome.test.accuracy:.6f}")
    with watch.phase("export"):
        version = write_package(arguments.model_dir, network.module, _description(materials, outcome))
    report = _report(materials, outcome, version, watch.seconds)
    write_json(arguments.output_data_dir / "report.json", asdict(report))


def _prepare(arguments: Arguments, ranks: Ranks) -> _Materials:
    chosen = arguments.hyperparameters
    _check_alike(asdict(chosen) | {"weights": chosen.weights != "none"}, ranks)
    classes = find_classes(arguments.splits["train"], ranks)
    weights = read_starting_weights(chosen, arguments.weights_file)
    dataset = load_dataset(
        arguments.splits,
        classes,
        weights.preprocessing.resize,
        arguments.workers,
        ranks=ranks,
        sharded=arguments.sharded,
    )
    normalisation = _normalisation(weights, dataset, ranks)
    device = _device(arguments)
    recipe = Recipe(chosen, normalisation, mirrors(chosen.architecture), device, dataset.shares["train"], ranks)
    return _Materials(arguments, dataset, weights, recipe)


def _check_alike(hyperparameters: dict[str, object], ranks: Ranks) -> None:
    for rank, other in enumerate(ranks.gather(hyperparameters)):
        different = [name for name, value in hyperparameters.items() if other[name] != value]
        if different:
            msg = f"{ranks.cluster.name_of(rank)} trains with another {', '.join(different)} than the others"
            raise RankError(msg)


def _device(arguments: Arguments) -> torch.device:
    """Return where to compute: each process of an instance on a GPU of its own."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    processes, gpus = arguments.cluster.processes_per_host, torch.cuda.device_count()
    if processes > gpus:
        msg = f"{processes} processes on an instance need as many GPUs, there are {gpus}"
        raise RankError(msg)
    device = torch.device("cuda", arguments.cluster.local_rank or 0)
    torch.cuda.set_device(device)
    # Or the same seed would not give the same model, nor a resumed training go on as it would have.
    torch.backends.cudnn.deterministic = True
    return device


def _agreed_digests(network: Network, ranks: Ranks) -> list[str]:
    """Return the digest of each rank's weights.

    Raises:
        RankError: They are not all the same: something went wrong that must not be hidden in a model.
    """
    digests: list[str] = ranks.gather(weights_digest(network.module.state_dict()))
    if len(set(digests)) > 1:
        msg = f"the ranks do not hold the same weights after training: {', '.join(one[:12] for one in digests)}"
        raise RankError(msg)
    return digests


def _normalisation(weights: StartingWeights, dataset: Dataset, ranks: Ranks) -> Normalisation:
    """Return what the weights demand; where nothing does, what the training pictures are like."""
    if weights.preprocessing.mean is not None and weights.preprocessing.std is not None:
        return Normalisation(weights.preprocessing.mean, weights.preprocessing.std)
    return Normalisation(*channel_statistics(dataset.splits["train"].images, ranks))


def _network(materials: _Materials) -> Network:
    chosen, classes = materials.recipe.chosen, materials.dataset.classes
    seed_everything(chosen.seed, "weights")
    network = build_network(chosen.architecture, len(classes), chosen.trainable)
    if materials.weights.tensors:
        sentence = load_into(network, materials.weights, classes)
        if materials.ranks.first:
            say(sentence)
    # The seed makes them equal already, where all machines are alike.
    network.module.load_state_dict(materials.ranks.share(network.module.state_dict()))
    network = replace(network, module=normalise_globally(network.module, materials.ranks, materials.recipe.device))
    network.module.to(materials.recipe.device)
    # Pictures lie in memory with their colours last; a network in that order is a third faster on a processor.
    network.module.to(memory_format=torch.channels_last)
    return network


def _fit(network: Network, materials: _Materials) -> Fitted:
    arguments, dataset = materials.arguments, materials.dataset
    fingerprint = fingerprint_of(asdict(arguments.hyperparameters), dataset.classes, dataset.digests)
    # What other hosts find in their folders is of no account: rank 0 reads, writes, and tells the others.
    folder = arguments.checkpoint_dir if materials.ranks.first else None
    checkpoints = Checkpoints(folder, arguments.checkpoint_seconds, fingerprint)
    return fit(network, dataset.splits["train"], dataset.splits["valid"], materials.recipe, checkpoints)


def _test(network: Network, materials: _Materials) -> TestEvaluation:
    pictures, recipe = materials.dataset.splits["test"], materials.recipe
    outcome = evaluate(
        network, pictures, recipe.normalisation, recipe.chosen.batch_size, recipe.device, ranks=recipe.ranks
    )
    return describe_test(pictures, materials.dataset.classes, *outcome, ranks=recipe.ranks)


def _description(materials: _Materials, outcome: _Outcome) -> Description:
    best, test = outcome.fitted.best, outcome.test
    return Description(
        architecture=materials.recipe.chosen.architecture,
        classes=materials.dataset.classes,
        resize=materials.weights.preprocessing.resize,
        normalisation=materials.recipe.normalisation,
        metrics={
            "valid_loss": best.valid_loss,
            "valid_accuracy": best.valid_accuracy,
            "test_loss": test.loss,
            "test_accuracy": test.accuracy,
        },
    )


def _report(materials: _Materials, outcome: _Outcome, version: str, seconds: dict[str, float]) -> Report:
    dataset, fitted = materials.dataset, outcome.fitted
    return Report(
        classes=list(dataset.classes),
        hyperparameters=asdict(materials.recipe.chosen),
        device=_device_name(materials.recipe.device),
        torch_version=torch.__version__,
        model_version=version,
        counts=dataset.counts,
        skipped_files=dataset.skipped,
        epochs=list(fitted.epochs),
        best_epoch=fitted.best.epoch,
        stopped_early=fitted.stopped_early,
        resumed_from_epoch=fitted.resumed_from_epoch,
        test=outcome.test,
        seconds=seconds,
        images_per_second=dataset.counts["train"] * len(fitted.epochs) / sum(one.seconds for one in fitted.epochs),
        ranks=_ranks_report(materials, outcome.weights_digests),
    )


def _ranks_report(materials: _Materials, digests: list[str]) -> RanksReport:
    cluster, chosen, share = materials.ranks.cluster, materials.recipe.chosen, materials.recipe.share
    return RanksReport(
        world_size=cluster.size,
        hosts=list(cluster.hosts),
        processes_per_instance=cluster.processes_per_host,
        sharded=sorted(materials.arguments.sharded),
        train_pictures=share.taken_by_rank(chosen.batch_size),
        weights_digests=digests,
    )


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name()})"
    return f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"


def _say_start(materials: _Materials) -> None:
    dataset, ranks = materials.dataset, materials.ranks
    device, alone = _device_name(materials.recipe.device), ranks.size == 1
    place = "" if alone else f", {ranks.cluster.name_of(ranks.rank)} of {ranks.size}"
    if not ranks.first:
        say(f"Training on {device}{place}: the first rank's log has the rest")
        return
    counts = ", ".join(f"{split} {count}" for split, count in dataset.counts.items())
    say(f"Training on {device}{place}: {counts} pictures of {len(dataset.classes)} classes")
    for skipped in dataset.skipped[:_SKIPPED_SHOWN]:
        say(f"Skipped {skipped.file}: {skipped.reason}")
    if len(dataset.skipped) > _SKIPPED_SHOWN:
        say(f"Skipped {len(dataset.skipped)} files in all; report.json names them")

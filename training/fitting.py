"""The training loop: epochs until there are enough or validation gets no better, the best weights kept."""

import json
import math
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from training.architectures import Network
from training.augmentation import augment, draw_chances
from training.checkpoints import Checkpoints
from training.console import say, say_epoch
from training.datasets import Pictures
from training.errors import DivergedError
from training.evaluation import Normalisation, evaluate, means_of, no_sums, sums_of
from training.hyperparameters import Hyperparameters
from training.optimizers import build_optimizer
from training.ranks import ALONE, Ranks
from training.report import Epoch
from training.schedules import learning_rate_at
from training.seeds import seed_everything
from training.sharding import Part, Share


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train, all that does not change on the way."""

    chosen: Hyperparameters
    normalisation: Normalisation
    mirror: bool
    device: torch.device
    share: Share
    ranks: Ranks = ALONE


@dataclass(slots=True)
class State:
    """Where a training stands; a checkpoint is this, and nothing else is needed to go on."""

    network: Network
    optimizer: torch.optim.Optimizer
    sums: Tensor
    epochs: list[Epoch] = field(default_factory=list)
    batches_done: int = 0
    seconds_in_epoch: float = 0.0
    best: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0
    diverged: bool = False


@dataclass(frozen=True, slots=True)
class Fitted:
    """What came of it; the network holds the weights of the best epoch."""

    epochs: tuple[Epoch, ...]
    best: Epoch
    stopped_early: bool
    resumed_from_epoch: int | None


def fit(network: Network, train: Pictures, valid: Pictures, recipe: Recipe, checkpoints: Checkpoints) -> Fitted:
    """Train, from rank 0's checkpoint if there is one, and leave the best weights in the network.

    Raises:
        DivergedError: The first epoch ended with a loss that is not a number.
    """
    state = State(network, build_optimizer(network.module, recipe.chosen), no_sums(recipe.device))
    resumed = _resume(state, recipe.ranks.share(checkpoints.load()), recipe.ranks)
    while not _finished(state, recipe.chosen):
        _train_epoch(state, train, recipe, checkpoints)
        _end_epoch(state, valid, recipe)
        if checkpoints.due() or _finished(state, recipe.chosen):
            checkpoints.save(_saved(state))
    network.module.load_state_dict(state.best)
    stopped_early = len(state.epochs) < recipe.chosen.epochs
    return Fitted(tuple(state.epochs), state.epochs[state.best_epoch - 1], stopped_early, resumed)


def _finished(state: State, chosen: Hyperparameters) -> bool:
    done = len(state.epochs)
    return state.diverged or done >= chosen.epochs or done - state.best_epoch >= chosen.patience


def _train_epoch(state: State, train: Pictures, recipe: Recipe, checkpoints: Checkpoints) -> None:
    chosen, epoch = recipe.chosen, len(state.epochs) + 1
    parts = recipe.share.parts(chosen.batch_size, chosen.seed, epoch)
    state.network.set_training()
    for number in range(state.batches_done, len(parts)):
        began = time.perf_counter()
        rate = learning_rate_at((epoch - 1) * len(parts) + number, chosen.epochs * len(parts), chosen.learning_rate)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        seed_everything(chosen.seed, "step", epoch, number)
        state.sums += _step(state, train, parts[number], recipe)
        state.batches_done = number + 1
        state.seconds_in_epoch += time.perf_counter() - began
        if checkpoints.due():
            checkpoints.save(_saved(state))


def _step(state: State, train: Pictures, part: Part, recipe: Recipe) -> Tensor:
    """Take one step with the global batch, of which this rank has a part, perhaps an empty one; return its sums."""
    images, labels = _pictures(train, part, recipe)
    logits = state.network.module(images)
    state.optimizer.zero_grad(set_to_none=True)
    # Each rank's share of the mean over the global batch: the shares add up to it, however uneven the parts are.
    (functional.cross_entropy(logits, labels, reduction="sum") / part.count).backward()  # type: ignore[no-untyped-call]
    sums = sums_of(logits.detach(), labels)
    recipe.ranks.add_up(sums, *_gradients(state.optimizer))
    state.optimizer.step()
    return sums


def _pictures(train: Pictures, part: Part, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Return this rank's pictures of a step as the network sees them, and their labels."""
    chosen, device, places = recipe.chosen, recipe.device, part.places.numpy()
    images = torch.from_numpy(train.images[places]).to(device).permute(0, 3, 1, 2).float() / 255
    labels = torch.from_numpy(train.labels[places]).to(device)
    chances = draw_chances(part.count, device)[part.first : part.first + len(places)]
    if not recipe.ranks.first:
        # What the network draws itself (dropout) is drawn for a part; ranks must not draw the same.
        seed_everything(torch.initial_seed(), "rank", recipe.ranks.rank)
    images = augment(images, chances, chosen.augmentation, mirror=recipe.mirror)
    mean, std = (torch.tensor(one, device=device).view(-1, 1, 1) for one in asdict(recipe.normalisation).values())
    return (images - mean) / std, labels


def _gradients(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return the gradients of all that is trained; zeros where a rank's part had nothing to say."""
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    for one in parameters:
        if one.grad is None:
            one.grad = torch.zeros_like(one)
    return [one.grad for one in parameters]


def _end_epoch(state: State, valid: Pictures, recipe: Recipe) -> None:
    began = time.perf_counter()
    train_loss, train_accuracy = means_of(state.sums)
    valid_loss, valid_accuracy, _ = evaluate(
        state.network, valid, recipe.normalisation, recipe.chosen.batch_size, recipe.device, ranks=recipe.ranks
    )
    seconds = state.seconds_in_epoch + time.perf_counter() - began
    rate = float(state.optimizer.param_groups[0]["lr"])
    number = len(state.epochs) + 1
    state.sums, state.batches_done, state.seconds_in_epoch = no_sums(recipe.device), 0, 0.0
    if not (math.isfinite(train_loss) and math.isfinite(valid_loss)):
        _give_up(state, number, recipe.ranks)
        return
    state.epochs.append(Epoch(number, train_loss, train_accuracy, valid_loss, valid_accuracy, rate, seconds))
    if recipe.ranks.first:
        say_epoch(state.epochs[-1])
    if not state.best or _better(state.epochs[-1], state.epochs[state.best_epoch - 1]):
        state.best_epoch = number
        state.best = {name: tensor.cpu().clone() for name, tensor in state.network.module.state_dict().items()}


def _give_up(state: State, number: int, ranks: Ranks) -> None:
    if not state.best:
        msg = f"the loss is not a number after epoch {number}: choose a lower learning_rate"
        raise DivergedError(msg)
    if ranks.first:
        say(f"The loss is not a number after epoch {number}: training ends, the best epoch before it is kept")
    state.diverged = True


def _better(one: Epoch, other: Epoch) -> bool:
    """Compare by accuracy on validation, and by loss where that is equal."""
    return (one.valid_accuracy, -one.valid_loss) > (other.valid_accuracy, -other.valid_loss)


def _saved(state: State) -> dict[str, Any]:
    progress = {
        "epochs": [asdict(epoch) for epoch in state.epochs],
        "batches_done": state.batches_done,
        "seconds_in_epoch": state.seconds_in_epoch,
        "best_epoch": state.best_epoch,
        "diverged": state.diverged,
    }
    return {
        "network": state.network.module.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "best": state.best,
        "sums": state.sums,
        "progress": json.dumps(progress),
    }


def _resume(state: State, saved: dict[str, Any] | None, ranks: Ranks) -> int | None:
    """Put a checkpoint's state in place, and return the epoch in which it goes on."""
    if saved is None:
        return None
    state.network.module.load_state_dict(saved["network"])
    state.optimizer.load_state_dict(saved["optimizer"])
    state.best = saved["best"]
    state.sums = saved["sums"].to(state.sums.device)
    progress = json.loads(saved["progress"])
    state.epochs = [Epoch(**epoch) for epoch in progress["epochs"]]
    state.batches_done, state.seconds_in_epoch = progress["batches_done"], progress["seconds_in_epoch"]
    state.best_epoch, state.diverged = progress["best_epoch"], progress["diverged"]
    epoch = len(state.epochs) + 1
    if ranks.first:
        say(f"Resuming from the checkpoint: epoch {epoch}, {state.batches_done} batches of it are done")
    return epoch

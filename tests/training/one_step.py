"""One step in double precision, by two ranks and by one: `python one_step.py RANK PORT` prints how they differ."""

import copy
import json
import sys

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.architectures import build_network
from training.batch_norm import normalise_globally
from training.cluster import Cluster
from training.ranks import Ranks, joined

COUNT = 9


def gradients(module: nn.Module, images: Tensor, labels: Tensor) -> list[Tensor]:
    module.zero_grad()
    loss = functional.cross_entropy(module(images), labels, reduction="sum") / COUNT
    loss.backward()  # type: ignore[no-untyped-call]
    return [one.grad for one in module.parameters() if one.grad is not None]


def furthest(ours: list[Tensor], theirs: list[Tensor]) -> float:
    assert len(ours) == len(theirs)
    return max(float((one - other).abs().max()) for one, other in zip(ours, theirs, strict=True))


def compare(architecture: str, cut: int, ranks: Ranks) -> tuple[float, float]:
    torch.manual_seed(1)
    alone = build_network(architecture, 3, "all").module.double().to(memory_format=torch.channels_last).train()
    together = normalise_globally(copy.deepcopy(alone), ranks, torch.device("cpu"))
    images, labels = torch.rand(COUNT, 3, 32, 32, dtype=torch.float64), torch.arange(COUNT) % 3
    part = slice(0, cut) if ranks.first else slice(cut, COUNT)
    ours, theirs = gradients(together, images[part], labels[part]), gradients(alone, images, labels)
    for one in ours:
        ranks.add_up(one)
    return furthest(ours, theirs), furthest(list(together.buffers()), list(alone.buffers()))


def main() -> None:
    rank, port = map(int, sys.argv[1:])
    cluster = Cluster(hosts=("algo-1", "algo-2"), host=f"algo-{rank + 1}", port=port)
    with joined(cluster) as ranks:
        found = {
            f"{architecture} {cut}": compare(architecture, cut, ranks)
            for architecture in ("small_cnn", "resnet18")
            for cut in (4, 0, COUNT)
        }
    sys.stdout.write(json.dumps(found))


main()

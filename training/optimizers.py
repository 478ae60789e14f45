"""The optimizer, without the compiler that torch.optim imports to tell it what is none of its business.

That would be torch._dynamo, sympy and half of torch.distributed: two seconds of every training, in which nothing is
compiled. A torch that does it in another way imports them again; what is computed is the same.
"""

from typing import Any

import torch
from torch import nn

from training.hyperparameters import Hyperparameters

_TOLD_TO_THE_COMPILER = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


class _Eager(torch.optim.AdamW):
    """AdamW whose step does without gradients as it is, and does not ask the compiler to see to it."""

    step = torch.no_grad()(getattr(torch.optim.AdamW.step, "__wrapped__", torch.optim.AdamW.step))


def build_optimizer(module: nn.Module, chosen: Hyperparameters) -> torch.optim.Optimizer:
    """Return AdamW for what is trained of a network; scales and shifts (BatchNorm, biases) are not decayed."""
    for name in _TOLD_TO_THE_COMPILER:
        told: Any = getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None)
        if told is not None:
            # Where torch keeps what the compiler made of it, so that it asks once.
            told.__dynamo_disable = told  # noqa: SLF001 - there is no other way
    parameters = [one for one in module.parameters() if one.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [one for one in parameters if one.ndim > 1], "weight_decay": chosen.weight_decay},
        {"params": [one for one in parameters if one.ndim <= 1], "weight_decay": 0.0},
    ]
    return _Eager([group for group in groups if group["params"]], lr=chosen.learning_rate)

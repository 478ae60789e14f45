"""BatchNorm over the global batch: what N ranks normalise by is what one rank would.

torch's SyncBatchNorm does it on CUDA only. A BatchNorm over each rank's own part would make the outcome depend on the
number of ranks, and fail on a rank whose part is empty.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from training.ranks import Ranks

_EPS = 1e-5


class GlobalBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d whose statistics in training are those of all ranks' pictures; in evaluation the same as its base."""

    ranks: Ranks

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the base's name for it
        """Return the normalised input; in training, take its statistics into the running ones."""
        if not self.training:
            return super().forward(input)
        mean, variance, count = _statistics(input, self.ranks)
        self._remember(mean, variance * count / max(count - 1, 1))
        normalised: Tensor = _Normalise.apply(input, self.weight, self.bias, mean, variance, self, count)
        return normalised

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


def normalise_globally(module: nn.Module, ranks: Ranks, device: torch.device) -> nn.Module:
    """Return the module with every BatchNorm2d one over the global batch; names and weights stay as they are."""
    if ranks.size == 1:
        return module
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return converted
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            # In place: the layer keeps its weights, its hooks and its name.
            layer.__class__ = GlobalBatchNorm
            cast("GlobalBatchNorm", layer).ranks = ranks
    return module


@torch.no_grad()
def _statistics(images: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor, int]:
    """Return mean and variance of each channel over all ranks, and of how many values they are."""
    channels, own = images.shape[1], images.numel() // images.shape[1]
    sums = torch.zeros(2 * channels + 1, dtype=torch.float64)
    if own:
        # BatchNorm's own kernel: its output is for nothing, and yet it takes a tenth of torch.var_mean's time.
        _, mean, inverse = torch.native_batch_norm(
            images, None, None, None, None, training=True, momentum=0.0, eps=_EPS
        )
        mean, variance = mean.double(), inverse.double() ** -2 - _EPS
        # In double precision, so that the difference of large squares below loses nothing.
        sums = torch.cat([mean, variance + mean**2, torch.ones(1, dtype=torch.float64)]) * own
    ranks.add_up(sums)
    mean, square = (sums[:-1] / sums[-1]).chunk(2)
    return mean.to(images.dtype), (square - mean**2).clamp(min=0).to(images.dtype), int(sums[-1])


class _Normalise(Function):
    """Normalise by given statistics; backwards, know that they were made of all ranks' inputs."""

    @staticmethod
    def forward(  # noqa: PLR0917 - torch passes them by position
        context: Any,
        images: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        layer: GlobalBatchNorm,
        count: int,
    ) -> Tensor:
        context.save_for_backward(images, weight, mean, variance)
        context.layer, context.count = layer, count
        if not images.numel():
            return images.clone()
        return functional.batch_norm(images, mean, variance, weight, bias, training=False, eps=layer.eps)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        images, weight, mean, variance = context.saved_tensors
        layer, inverse = context.layer, torch.rsqrt(variance + context.layer.eps)
        of_images, of_weight, of_bias = _with_constant_statistics(gradients[0], images, weight, mean, inverse)
        sums = torch.cat([of_weight, of_bias])
        layer.ranks.add_up(sums)
        by_weight, by_bias = (sums / context.count).chunk(2)
        slope = -weight * inverse**2 * by_weight
        shift = -weight * inverse * by_bias - slope * mean
        of_images.addcmul_(images, slope.view(-1, 1, 1)).add_(shift.view(-1, 1, 1))
        return of_images, of_weight, of_bias, None, None, None, None


def _with_constant_statistics(
    gradient: Tensor, images: Tensor, weight: Tensor, mean: Tensor, inverse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of images, weight and bias as if the statistics did not depend on the images: one pass."""
    if not images.numel():  # the kernel crashes
        return torch.zeros_like(images), torch.zeros_like(weight), torch.zeros_like(weight)
    variance = inverse**-2
    gradients: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_batch_norm_backward(
        gradient, images, weight, mean, variance, mean, inverse, train=False, eps=0.0, output_mask=[True, True, True]
    )
    return gradients

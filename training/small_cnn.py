"""A small network for tiny pictures: a hundred thousand parameters or so, trained in seconds on a processor."""

from torch import Tensor, nn

_WIDTHS = (24, 48, 96)


class SmallCnn(nn.Module):
    """Three stages of convolutions that each halve the side, the mean over what is left, and a linear layer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width in zip((3, *_WIDTHS), _WIDTHS, strict=False):
            layers += [*_convolution(before, width), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers, *_convolution(_WIDTHS[-1], _WIDTHS[-1]))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(_WIDTHS[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, (N, classes), for pictures (N, 3, H, W) with sides of 8 pixels or more."""
        logits: Tensor = self.head(self.pool(self.features(images)))
        return logits


def _convolution(before: int, after: int) -> tuple[nn.Module, ...]:
    return (nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True))

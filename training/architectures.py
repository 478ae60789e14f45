"""The networks by name, with a head for the classes at hand."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from training.serving.preprocessing import Resize
from training.small_cnn import SmallCnn

SMALL_CNN = "small_cnn"


@dataclass(frozen=True, slots=True)
class Network:
    """A network, and the name of its last layer: `head` is what fits it to the classes."""

    module: nn.Module
    head_name: str
    trainable: str

    @property
    def head(self) -> nn.Module:
        """Return the last layer."""
        return self.module.get_submodule(self.head_name)

    def set_training(self) -> None:
        """Prepare for a training step.

        A frozen backbone stays as in evaluation: its BatchNorm would go on taking in statistics, its dropout add noise.
        """
        self.module.train(self.trainable == "all")
        self.head.train()

    def set_evaluation(self) -> None:
        """Prepare for evaluation."""
        self.module.eval()


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What pictures are to look like for given weights; mean and std are None when they come from the data."""

    resize: Resize
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def build_network(architecture: str, classes: int, trainable: str) -> Network:
    """Return a network with random weights and a head for the classes."""
    module = SmallCnn(classes) if architecture == SMALL_CNN else _torchvision_network(architecture, classes)
    head_name = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)][-1]
    network = Network(module, head_name, trainable)
    if trainable == "head":
        module.requires_grad_(requires_grad=False)
        network.head.requires_grad_(requires_grad=True)
    return network


def mirrors(architecture: str) -> bool:
    """Tell whether augmentation may mirror: photographs yes; tiny pictures are often signs."""
    return architecture != SMALL_CNN


def imagenet_preprocessing(architecture: str, image_size: int) -> Preprocessing:
    """Return what the ImageNet weights of a torchvision network demand, at another size if so wished."""
    wanted = _imagenet_weights(architecture).transforms()
    crop = wanted.crop_size[0] / wanted.resize_size[0]
    interpolation = str(wanted.interpolation.value)
    return Preprocessing(Resize(image_size, round(crop, 6), interpolation), tuple(wanted.mean), tuple(wanted.std))


def imagenet_state(architecture: str) -> dict[str, Any]:
    """Return torchvision's ImageNet weights, downloaded unless they are there already; the digest is checked."""
    state: dict[str, Any] = _imagenet_weights(architecture).get_state_dict(
        progress=False, check_hash=True, weights_only=True, map_location="cpu"
    )
    return state


def _torchvision_network(architecture: str, classes: int) -> nn.Module:
    from torchvision.models import get_model  # noqa: PLC0415 - takes 2.5 s, and small_cnn does without

    network: nn.Module = get_model(architecture, weights=None, num_classes=classes)
    return network


def _imagenet_weights(architecture: str) -> Any:
    from torchvision.models import get_model_weights  # noqa: PLC0415 - as above

    return get_model_weights(architecture).DEFAULT

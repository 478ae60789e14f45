"""The model package: everything an endpoint needs, in one folder that becomes model.tar.gz."""

import hashlib
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.evaluation import Normalisation
from training.files import replacing, write_json
from training.serving.classifier import FORMAT
from training.serving.preprocessing import Resize
from training.weights import save_weights

_SERVING = Path(__file__).parent / "serving"
# Where the Ray Serve image looks for them; the rest of the folder is the package `serving`.
_PLACES = {"config.yaml": "config.yaml", "requirements.txt": "code/requirements.txt"}
_VERSION_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Description:
    """What model.json says besides the format and the version."""

    architecture: str
    classes: tuple[str, ...]
    resize: Resize
    normalisation: Normalisation
    metrics: Mapping[str, float]


def write_package(folder: Path, module: nn.Module, description: Description) -> str:
    """Write the package and return the model's version; model.json comes last, so where it is, all is."""
    module = module.cpu().eval()
    tensors = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    content = _content(description, weights_digest(tensors)[:_VERSION_DIGITS])
    _copy_serving(folder)
    with replacing(folder / "model.safetensors") as scratch:
        save_weights(scratch, tensors, content)
    with replacing(folder / "model.onnx") as scratch:
        _export(module, scratch, description.resize.size)
    write_json(folder / "model.json", content)
    return str(content["model_version"])


def _content(description: Description, version: str) -> dict[str, Any]:
    resize = description.resize
    return {
        "format": FORMAT,
        "architecture": description.architecture,
        "classes": list(description.classes),
        "image_size": resize.size,
        "mean": list(description.normalisation.mean),
        "std": list(description.normalisation.std),
        "resize": {"crop": resize.crop, "interpolation": resize.interpolation},
        "model_version": version,
        "metrics": dict(description.metrics),
    }


def weights_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the digest of the weights themselves, whatever file they are in; a model's version begins it."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _copy_serving(folder: Path) -> None:
    for source in sorted(_SERVING.iterdir()):
        if source.is_file():
            with replacing(folder / _PLACES.get(source.name, f"serving/{source.name}")) as scratch:
                shutil.copyfile(source, scratch)


def _export(module: nn.Module, file: Path, size: int) -> None:
    """Write the network, a softmax behind it, as ONNX: `images` (N, 3, H, W) to `probabilities` (N, classes)."""
    with warnings.catch_warnings():
        # dynamo=True takes 4 s instead of 0.2 and needs onnxscript too.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        torch.onnx.export(
            nn.Sequential(module, nn.Softmax(dim=1)).eval(),
            (torch.zeros(1, 3, size, size),),
            file,
            dynamo=False,
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_axes={"images": {0: "batch"}, "probabilities": {0: "batch"}},
        )

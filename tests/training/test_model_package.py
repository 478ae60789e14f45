"""The model package: complete, whole, and the same model in every form."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from safetensors.torch import load_file

from training.architectures import build_network
from training.files import replacing, write_json

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_the_package_is_laid_out_as_the_ray_serve_image_wants_it(trained: dict[str, Any]) -> None:
    package = trained["package"]
    files = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    sources = {path.name for path in (ROOT / "training" / "serving").glob("*.py")}
    top = {"config.yaml", "model.json", "model.onnx", "model.safetensors", "code/requirements.txt"}
    assert files == top | {f"serving/{name}" for name in sources}


def test_config_names_an_asgi_factory_that_is_in_the_package(trained: dict[str, Any]) -> None:
    (application,) = yaml.safe_load((trained["package"] / "config.yaml").read_text())["applications"]
    assert application["import_path"] == "serving.ray_app:build"
    module, factory = application["args"]["asgi_app"].split(":")
    source = trained["package"] / f"{module.replace('.', '/')}.py"
    assert f"def {factory}(" in source.read_text()


def test_model_json_says_what_the_model_is(trained: dict[str, Any]) -> None:
    model = json.loads((trained["package"] / "model.json").read_text())
    assert model["format"] == 1
    assert model["classes"] == [str(digit) for digit in range(10)]
    assert (model["architecture"], model["image_size"]) == ("small_cnn", 32)
    assert re.fullmatch("[0-9a-f]{12}", model["model_version"])
    assert model["metrics"]["test_accuracy"] == trained["report"]["test"]["accuracy"]


@pytest.mark.parametrize("batch", [1, 5])
def test_onnx_and_torch_give_the_same_probabilities(trained: dict[str, Any], batch: int) -> None:
    network = build_network("small_cnn", 10, "all").module
    network.load_state_dict(load_file(trained["package"] / "model.safetensors"))
    images = torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected = network.eval()(images).softmax(dim=1).numpy()
    (ours,) = onnxruntime.InferenceSession(trained["package"] / "model.onnx").run(None, {"images": images.numpy()})
    assert np.allclose(ours, expected, atol=1e-6)


def test_serving_never_imports_torch(trained: dict[str, Any]) -> None:
    code = "import sys, serving.app; serving.app.create_app(); assert not {'torch', 'torchvision'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=trained["package"], check=True)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    write_json(tmp_path / "report.json", {"epoch": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "report.json", {"loss": float("nan")})
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "report.json") as scratch:
        scratch.write_text(str(1 / 0))
    assert json.loads((tmp_path / "report.json").read_text()) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [tmp_path / "report.json"]

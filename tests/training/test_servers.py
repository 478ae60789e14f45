"""The model package under real servers, started as the local AWS and the Ray Serve image start it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(package: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SM_", "SAGEMAKER_", "RAY_"))}
    return kept | {"SM_MODEL_DIR": str(package), "PYTHONPATH": f"{package}:{package / 'code'}"} | more


def uvicorn(port: int) -> list[str]:
    return [sys.executable, "-m", "uvicorn", "--factory", "serving.app:create_app", "--port", str(port)]


@contextmanager
def running(command: list[str], package: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """Run a server in a process group of its own, and end all of it."""
    process = subprocess.Popen(
        command,
        cwd=package,
        env=environment(package, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def answers(url: str, process: subprocess.Popen[str], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own server
                return bool(answer.status == 200)
        except OSError:
            time.sleep(0.05)
    return False


def ask(url: str, body: bytes, kind: str = "image/png") -> dict[str, Any]:
    request = urllib.request.Request(url, body, {"Content-Type": kind})  # noqa: S310 - our own server
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - our own server
        result: dict[str, Any] = json.load(answer)
        return result


def test_uvicorn_serves_the_package_from_its_own_folder(trained: dict[str, Any], digits: Path) -> None:
    port = free_port()
    offline = trained["report"]["test"]["predictions"][0]
    with running(uvicorn(port), trained["package"]) as server:
        assert answers(f"http://127.0.0.1:{port}/ping", server, 20)
        answer = ask(f"http://127.0.0.1:{port}/invocations", (digits / "test" / offline["file"]).read_bytes())
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(f"http://127.0.0.1:{port}/invocations", bytes(30 * 2**20), "image/jpeg")
    assert answer["label"] == offline["predicted"]
    assert refused.value.code == 413, "and the client, who is still sending, reads it"


def test_a_server_whose_model_cannot_load_ends_with_one_sentence(trained: dict[str, Any], tmp_path: Path) -> None:
    package = Path(shutil.copytree(trained["package"], tmp_path / "package"))
    (package / "model.onnx").unlink()
    done = subprocess.run(
        uvicorn(free_port()),
        cwd=package,
        env=environment(package),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode != 0
    assert done.stderr == f"the model package has no model.onnx: {package}/model.onnx is missing\n"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Using extra keyword arguments:DeprecationWarning")
def test_ray_gets_the_sentence_of_a_model_that_cannot_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left as SystemExit it would end the replica's process without a word in Ray's log."""
    from training.serving.ray_app import load_app

    monkeypatch.setenv("SM_MODEL_DIR", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"the model package has no model\.json"):
        load_app("training.serving.app:create_app")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Using extra keyword arguments:DeprecationWarning")
def test_ray_serve_answers_what_the_training_computed(
    trained: dict[str, Any], digits: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    port, scratch = free_port(), Path("/tmp") / f"ray-{os.getpid()}"  # noqa: S108 - sockets need a short path
    start = (
        "import sys, ray; from ray import serve; from ray.serve.config import HTTPOptions;"
        "ray.init(num_cpus=2, object_store_memory=80 * 2**20, include_dashboard=False,"
        " _node_ip_address='127.0.0.1', _temp_dir=sys.argv[2], configure_logging=False);"
        "serve.start(http_options=HTTPOptions(host='127.0.0.1', port=int(sys.argv[1])));"
        "import yaml, importlib;"
        "config, = yaml.safe_load(open('config.yaml'))['applications'];"
        "module, _, name = config['import_path'].partition(':');"
        "build = getattr(importlib.import_module(module), name);"
        "serve.run(build(config['args']), name=config['name'], route_prefix=config['route_prefix'], blocking=True)"
    )
    command = [sys.executable, "-c", start, str(port), str(scratch)]
    try:
        with running(command, trained["package"], RAY_USAGE_STATS_ENABLED="0") as server:
            assert answers(f"http://127.0.0.1:{port}/-/healthz", server, 120), server.stdout
            assert answers(f"http://127.0.0.1:{port}/ping", server, 60)
            for offline in trained["report"]["test"]["predictions"][::12]:
                body = (digits / "test" / offline["file"]).read_bytes()
                answer = ask(f"http://127.0.0.1:{port}/", body)
                assert answer["label"] == offline["predicted"]
                assert answer["probability"] == pytest.approx(offline["probability"], abs=1e-5)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)

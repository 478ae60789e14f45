"""The endpoint: it answers what the training computed, and bad questions get one sentence."""

import asyncio
import base64
import io
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from training.serving.app import app_for, create_app
from training.serving.classifier import load_classifier
from training.serving.errors import ModelError
from training.serving.payloads import MAX_BODY_BYTES

pytestmark = pytest.mark.slow

PNG, JPEG, JSON = ({"content-type": kind} for kind in ("image/png", "image/jpeg", "application/json"))


class Client:
    """Asks an application as a server would, in this process."""

    def __init__(self, app: Any) -> None:
        self._transport = httpx.ASGITransport(app, raise_app_exceptions=False)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url="http://endpoint") as client:
                return await client.request(method, path, **options)

        return asyncio.run(ask())

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)

    def get(self, path: str) -> httpx.Response:
        return self.request("GET", path)


@pytest.fixture(scope="module")
def client(trained: dict[str, Any]) -> Client:
    return Client(app_for(load_classifier(trained["package"])))


@pytest.fixture
def digit(digits: Path) -> bytes:
    return next(iter(sorted((digits / "test" / "3").iterdir()))).read_bytes()


def picture(kind: str, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind)
    return buffer.getvalue()


def test_every_answer_is_the_offline_prediction(client: Client, digits: Path, trained: dict[str, Any]) -> None:
    for offline in trained["report"]["test"]["predictions"]:
        body = (digits / "test" / offline["file"]).read_bytes()
        answer = client.post("/invocations", content=body, headers=PNG).json()
        assert answer["label"] == offline["predicted"]
        assert answer["probability"] == pytest.approx(offline["probability"], abs=1e-5)


def test_an_answer_names_its_runners_up_and_its_model(client: Client, digit: bytes, trained: dict[str, Any]) -> None:
    answer = client.post("/invocations", content=digit, headers=PNG).json()
    probabilities = [candidate["probability"] for candidate in answer["top_k"]]
    assert len(probabilities) == 5
    assert probabilities == sorted(probabilities, reverse=True)
    assert answer["top_k"][0] == {"label": answer["label"], "probability": answer["probability"]}
    assert answer["model_version"] == trained["report"]["model_version"]


def test_the_root_answers_as_invocations_does(client: Client, digit: bytes) -> None:
    """The Ray Serve image's adapter posts there."""
    answers = [client.post(path, content=digit, headers=PNG).json() for path in ("/", "/invocations")]
    assert answers[0] == answers[1]


def test_ping_answers_once_the_model_is_loaded(client: Client) -> None:
    assert client.get("/ping").status_code == 200


def test_json_with_base64_is_answered_like_the_bytes(client: Client, digit: bytes) -> None:
    body = json.dumps({"image": base64.b64encode(digit).decode(), "top_k": 10})
    answer = client.post("/invocations", content=body, headers=JSON).json()
    assert answer["label"] == client.post("/invocations", content=digit, headers=PNG).json()["label"]
    assert sum(candidate["probability"] for candidate in answer["top_k"]) == pytest.approx(1)


def test_a_content_type_may_have_parameters(client: Client, digit: bytes) -> None:
    answer = client.post("/invocations", content=digit, headers={"content-type": "Image/PNG; charset=binary"})
    assert answer.status_code == 200


def test_a_jpeg_is_answered(client: Client) -> None:
    assert client.post("/invocations", content=picture("JPEG", (400, 300)), headers=JPEG).status_code == 200


def image_json(value: object, **more: object) -> bytes:
    return json.dumps({"image": value} | more).encode()


GOOD = base64.b64encode(picture("PNG")).decode()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("status", "headers", "body", "sentence"),
    [
        pytest.param(400, PNG, b"", "the body is empty", id="empty body"),
        pytest.param(400, JPEG, b"a text file named .jpg", "neither JPEG nor PNG", id="text claimed as jpeg"),
        pytest.param(400, PNG, picture("PNG", (99, 99))[:60], "broken", id="truncated png"),
        pytest.param(400, JPEG, picture("JPEG", (99, 99))[:700], "broken", id="truncated jpeg"),
        pytest.param(400, PNG, picture("GIF"), "neither JPEG nor PNG", id="gif claimed as png"),
        pytest.param(413, PNG, picture("PNG", (20_000, 20_000), "1"), "64,000,000 pixels", id="too many pixels"),
        pytest.param(413, PNG, picture("PNG", (9_000, 9_000), "1"), "64,000,000 pixels", id="a few too many pixels"),
        pytest.param(413, JPEG, bytes(30 * 2**20), "larger than 25 MB", id="30 MB"),
        pytest.param(413, JPEG, bytes(MAX_BODY_BYTES + 1), "larger than 25 MB", id="one byte too many"),
        pytest.param(415, {}, b"x", "Content-Type is missing", id="no type"),
        pytest.param(415, {"content-type": "text/csv"}, b"1,2", "Content-Type text/csv", id="wrong type"),
        pytest.param(400, JSON, b"{", "not JSON", id="bad json"),
        pytest.param(400, JSON, b"[" * 100_000, "not JSON", id="deep json"),
        pytest.param(400, JSON, b"\xff\xfe", "not JSON", id="json that is no text"),
        pytest.param(400, JSON, b"[]", "must be an object", id="json list"),
        pytest.param(400, JSON, image_json(5), "must be an object", id="image is a number"),
        pytest.param(400, JSON, image_json(GOOD, url="http://x"), "must be an object", id="url"),
        pytest.param(400, JSON, image_json("http://example.com/x.png"), "not base64", id="url as image"),
        pytest.param(400, JSON, image_json("ä"), "not base64", id="image is not ascii"),
        pytest.param(400, JSON, image_json(""), "empty", id="image is empty"),
        pytest.param(400, JSON, image_json(base64.b64encode(b"x").decode()), "neither JPEG nor PNG", id="no picture"),
        pytest.param(400, JSON, image_json(GOOD, top_k=0), "top_k must be a whole number from 1 to 10", id="top 0"),
        pytest.param(400, JSON, image_json(GOOD, top_k=11), "top_k must be", id="top 11"),
        pytest.param(400, JSON, image_json(GOOD, top_k=True), "top_k must be", id="top true"),
    ],
)
def test_a_bad_question_gets_one_sentence(
    client: Client, status: int, headers: dict[str, str], body: bytes, sentence: str
) -> None:
    answer = client.post("/invocations", content=body, headers=headers)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert sentence in answer.json()["error"]


def test_a_body_is_measured_and_its_length_not_believed(client: Client) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield bytes(2**20)

    answer = client.post("/invocations", content=parts(), headers=JPEG)
    assert answer.status_code == 413


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/invocations", 405), ("POST", "/models", 404)])
def test_anything_else_is_not_served(client: Client, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert "POST /invocations or GET /ping" in answer.json()["error"]


def test_a_failing_engine_is_a_500_that_tells_no_secrets(trained: dict[str, Any], digit: bytes) -> None:
    class Broken:
        def predict(self, _: object) -> Any:
            raise RuntimeError("secret")

    classifier = load_classifier(trained["package"])
    object.__setattr__(classifier, "engine", Broken())
    answer = Client(app_for(classifier)).post("/invocations", content=digit, headers=PNG)
    assert answer.status_code == 500
    assert "secret" not in answer.text


@pytest.fixture
def package(trained: dict[str, Any], tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained["package"], tmp_path / "package"))


def test_a_package_without_a_network_is_refused(package: Path) -> None:
    (package / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"model.onnx is missing"):
        load_classifier(package)


def test_a_corrupt_network_is_refused(package: Path) -> None:
    (package / "model.onnx").write_bytes(b"no network")
    with pytest.raises(ModelError, match="not a network that ONNX Runtime can load"):
        load_classifier(package)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not JSON"),
        ("{}", "is not of format 1"),
        ('{"format": 1}', "is not as this serving code wants it: KeyError"),
    ],
)
def test_a_description_that_is_not_ours_is_refused(package: Path, content: str, sentence: str) -> None:
    (package / "model.json").write_text(content)
    with pytest.raises(ModelError, match=sentence):
        load_classifier(package)


def test_labels_that_do_not_fit_the_network_are_refused(package: Path) -> None:
    model = json.loads((package / "model.json").read_text())
    (package / "model.json").write_text(json.dumps(model | {"classes": ["a", "b"]}))
    with pytest.raises(ModelError, match="one probability for each of the 2 classes"):
        load_classifier(package)


def test_the_package_is_found_where_the_environment_says(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SM_MODEL_DIR", str(package))
    assert Client(create_app()).get("/ping").status_code == 200
    monkeypatch.delenv("SM_MODEL_DIR")
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(package / "nowhere"))
    with pytest.raises(SystemExit, match=r"nowhere/model/model.json cannot be read"):
        create_app()

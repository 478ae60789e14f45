"""What surrounds a training on a plain machine, against an S3 that counts what it is asked for, and breaks off."""

import io
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import IncompleteReadError
from botocore.response import StreamingBody

from training import instance_job
from training.instance_job import InstanceJob

OBJECTS = {f"data/{number}.png": b"%d" % number * 100 for number in range(40)}
METRICS = [{"Name": name, "Regex": rf"{name}=([-+0-9.eE]+)"} for name in ("train_loss", "valid_loss")]
SPEC = {
    "name": "a-training",
    "channels": {"train": {"s3_uri": "s3://a-bucket/data/", "data_type": "S3Prefix"}},
    "hyperparameters": {},
    "metrics": METRICS,
    "output_s3_uri": "s3://a-bucket/out",
    "checkpoints_s3_uri": "s3://a-bucket/checkpoints",
    "machine": {"launched_at": 0.0},
}


class FakeS3:
    """Has only what is to be used; the first bodies that are asked of it end too early."""

    def __init__(self, broken_bodies: int) -> None:
        self.asked: list[str] = []
        self.written: dict[str, str] = {}
        self._broken_bodies = broken_bodies

    def get_paginator(self, _operation: str) -> "FakeS3":
        return self

    def paginate(self, **request: str) -> list[dict[str, Any]]:
        return [{"Contents": [{"Key": key} for key in OBJECTS if key.startswith(request["Prefix"])]}]

    def get_object(self, **request: str) -> dict[str, Any]:
        self.asked.append(request["Key"])
        content = OBJECTS[request["Key"]]
        sent = content[:-1] if len(self.asked) <= self._broken_bodies else content
        return {"Body": StreamingBody(io.BytesIO(sent), len(content))}

    def upload_file(self, _path: str, _bucket: str, key: str) -> None:
        self.asked.append(key)

    def put_object(self, **request: Any) -> None:
        self.written[request["Key"]] = request["Body"].decode()


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str, broken_bodies: int = 0) -> FakeS3:
    s3 = FakeS3(broken_bodies)
    monkeypatch.setattr(instance_job.boto3, "client", lambda *_arguments, **_options: s3)
    (folder / "script.py").write_text(script)
    monkeypatch.setattr(instance_job, "_SCRIPT", folder / "script.py")
    monkeypatch.setattr(instance_job, "_TRIES", 3)
    monkeypatch.chdir(folder)
    assert InstanceJob(SPEC).run() == 0
    return s3


def test_each_object_is_one_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    s3 = run(monkeypatch, tmp_path, "")
    assert sorted(key for key in s3.asked if key in OBJECTS) == sorted(OBJECTS)
    assert {f"data/{path.name}": path.read_bytes() for path in (tmp_path / "data" / "train").iterdir()} == OBJECTS


def test_a_body_that_breaks_off_is_asked_for_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run(monkeypatch, tmp_path, "", broken_bodies=2)
    assert {f"data/{path.name}": path.read_bytes() for path in (tmp_path / "data" / "train").iterdir()} == OBJECTS


def test_one_that_always_breaks_off_ends_the_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(IncompleteReadError):
        run(monkeypatch, tmp_path, "", broken_bodies=1000)


def test_the_last_value_of_each_metric_is_kept_and_every_line_passed_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    lines = ("epoch=1 train_loss=2 valid_loss=3e-1", "epoch=2 train_loss=1.5 valid_loss=e", "neither=1", "\xff")
    words = f"import sys; sys.stdout.buffer.write({chr(10).join(lines).encode('latin-1')!r})"
    s3 = run(monkeypatch, tmp_path, words)
    said = capfdbinary.readouterr().out
    assert "\n".join(lines).encode("latin-1") in said
    assert '"metrics": {\n  "train_loss": 1.5,\n  "valid_loss": 0.3\n }' in s3.written["out/result.json"]

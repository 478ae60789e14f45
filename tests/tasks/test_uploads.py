import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

import boto3
import numpy as np
import pytest
from botocore.stub import Stubber
from PIL import Image

from tasks import runs, uploads
from tasks.aws.clients import client
from tasks.aws.errors import DatasetError, SettingsError
from tasks.aws.settings import load_settings
from tasks.contracts import Dataset, DatasetSpec
from tasks.data.pictures import InspectedDataset
from tasks.datasets import inspect_dataset
from tasks.uploads import check_bucket, register_prefix, upload_dataset

GOOD = [
    f"{split}/{label}/{i}.png" for split in ("train", "valid", "test") for label in ("cat", "Größe 1") for i in "12"
]


class Spied:
    """A client that keeps what it was asked, and can be made to break."""

    def __init__(self, inner: Any, *, breaks_after: int | None = None) -> None:
        self.inner, self.breaks_after = inner, breaks_after
        self.puts: list[dict[str, Any]] = []
        self.lock = Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def put_object(self, **request: Any) -> Any:
        with self.lock:
            if self.breaks_after is not None and len(self.puts) >= self.breaks_after:
                message = "the cable was pulled"
                raise ConnectionError(message)
            self.puts.append(request)
        return self.inner.put_object(**request)


@pytest.fixture
def bucket(local_aws: object) -> str:
    _ = local_aws
    return load_settings().bucket


@pytest.fixture
def s3(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Spied:
    _ = bucket
    spied = Spied(client("s3"))
    monkeypatch.setattr(uploads, "client", lambda service: spied if service == "s3" else client(service))
    return spied


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A dataset under a name that no other test uses; the bucket is shared."""
    root = tmp_path / f"pets-{uuid4().hex[:8]}"
    for seed, path in enumerate(GOOD):
        draw(root / path, seed)
    return root


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)).save(path)


def inspected(root: Path) -> InspectedDataset:
    return inspect_dataset.fn(DatasetSpec(source=str(root)))


def keys_under(bucket: str, prefix: str) -> list[str]:
    return [item["Key"] for item in client("s3").list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])]


def read(uri: str) -> bytes:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    body: bytes = client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    return body


def sent_pictures(s3: Spied) -> list[str]:
    return [put["Key"] for put in s3.puts if "/files/" in put["Key"]]


# --- upload ---------------------------------------------------------------------------------------------------------


def test_everything_is_sent_the_first_time_and_nothing_the_second(s3: Spied, bucket: str, root: Path) -> None:
    first = upload_dataset.fn(inspected(root), bucket)
    assert (first.files_sent, first.bytes_sent) == (12, sum(path.stat().st_size for path in root.rglob("*.png")))
    s3.puts.clear()
    second = upload_dataset.fn(inspected(root), bucket)
    assert (second.files_sent, second.bytes_sent) == (0, 0)
    assert sent_pictures(s3) == []
    assert second.dataset == first.dataset


def test_only_what_changed_is_sent_and_the_old_version_stays(bucket: str, root: Path) -> None:
    old = upload_dataset.fn(inspected(root), bucket).dataset
    before = read(old.channels["train"].s3_uri)
    draw(root / "train" / "cat" / "1.png", 99)
    new = upload_dataset.fn(inspected(root), bucket)
    assert new.files_sent == 1
    assert new.dataset.digest != old.digest
    assert read(old.channels["train"].s3_uri) == before
    assert_complete(old)


def test_a_channel_leads_to_exactly_the_pictures_of_its_split(bucket: str, root: Path) -> None:
    dataset = upload_dataset.fn(inspected(root), bucket).dataset
    for split, channel in dataset.channels.items():
        prefix, *names = json.loads(read(channel.s3_uri))
        bodies = sorted((name.partition("/")[0], read(prefix["prefix"] + name)) for name in names)
        folder = root / split
        assert bodies == sorted((path.parent.name, path.read_bytes()) for path in folder.rglob("*.png"))


def assert_complete(dataset: Dataset) -> None:
    for channel in dataset.channels.values():
        prefix, *names = json.loads(read(channel.s3_uri))
        assert all(read(prefix["prefix"] + name) for name in names)


def test_an_interrupted_upload_goes_on_and_has_no_manifest_before(s3: Spied, bucket: str, root: Path) -> None:
    s3.breaks_after = 5
    with pytest.raises(ConnectionError):
        upload_dataset.fn(inspected(root), bucket)
    assert len(keys_under(bucket, f"datasets/{root.name}/files/")) == 5
    assert keys_under(bucket, f"datasets/{root.name}/versions/") == []
    s3.breaks_after = None
    result = upload_dataset.fn(inspected(root), bucket)
    assert result.files_sent == 7
    assert_complete(result.dataset)


def test_the_manifest_comes_last(s3: Spied, bucket: str, root: Path) -> None:
    upload_dataset.fn(inspected(root), bucket)
    names = [put["Key"].rpartition("/")[2] for put in s3.puts]
    assert names[12:] == ["train.json", "valid.json", "test.json", "dataset.json"]


def test_an_object_that_was_cut_short_is_sent_again(bucket: str, root: Path) -> None:
    upload_dataset.fn(inspected(root), bucket)
    key = keys_under(bucket, f"datasets/{root.name}/files/cat/")[0]
    client("s3").put_object(Bucket=bucket, Key=key, Body=b"cut")
    assert upload_dataset.fn(inspected(root), bucket).files_sent == 1


def test_every_object_says_what_it_is_and_whose(s3: Spied, bucket: str, root: Path) -> None:
    """S3 itself then refuses bytes that were changed on the way, and a bucket that changed hands."""
    upload_dataset.fn(inspected(root), bucket)
    assert {put["ExpectedBucketOwner"] for put in s3.puts} == {load_settings().account_id}
    assert all(put["ChecksumSHA256"] for put in s3.puts)
    assert {put["ContentType"] for put in s3.puts} == {"image/png", "application/json"}


def test_a_file_that_changed_after_the_inspection_is_not_sent(bucket: str, root: Path) -> None:
    looked_at = inspected(root)
    draw(root / "test" / "cat" / "1.png", 99)
    with pytest.raises(DatasetError, match=r"1\.png was changed or removed after its inspection: run again"):
        upload_dataset.fn(looked_at, bucket)
    assert keys_under(bucket, f"datasets/{root.name}/versions/") == []


def test_warnings_stay_with_the_dataset(bucket: str, root: Path) -> None:
    (root / "train" / "cat" / "cut.png").write_bytes((root / "train" / "cat" / "1.png").read_bytes()[:-30])
    dataset = upload_dataset.fn(inspected(root), bucket).dataset
    assert len(dataset.warnings) == 1
    assert dataset.warnings[0].startswith("Left out 1 picture that cannot be decoded: train/cat/cut.png")
    assert dataset.total_files == 12


# --- buckets --------------------------------------------------------------------------------------------------------


def test_a_bucket_that_does_not_exist_is_refused_before_anything_is_sent(s3: Spied, root: Path) -> None:
    with pytest.raises(
        SettingsError, match="There is no bucket no-such-bucket-of-ours: name the one of the foundation"
    ):
        upload_dataset.fn(inspected(root), "no-such-bucket-of-ours")
    assert s3.puts == []


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stubber]:
    """Put an S3 in place that answers one call with an error, and says nothing else."""

    def answer(operation: str, code: str, status: int) -> Stubber:
        keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "us-east-1"}
        s3, sts = boto3.client("s3", **keys), boto3.client("sts", **keys)
        stub = Stubber(s3)
        stub.add_client_error(operation, service_error_code=code, http_status_code=status)
        stub.activate()
        account = Stubber(sts)
        account.add_response("get_caller_identity", {"Account": "111122223333"})
        account.activate()
        monkeypatch.setattr(uploads, "client", lambda service: {"s3": s3, "sts": sts}[service])
        return stub

    return answer


def test_a_bucket_that_is_not_ours_is_refused_before_anything_is_sent(
    answering: Callable[..., Stubber], root: Path
) -> None:
    stub = answering("head_bucket", "403", 403)
    with pytest.raises(SettingsError, match=r"theirs is not ours: it belongs to another account than 111122223333"):
        upload_dataset.fn(inspected(root), "theirs")
    stub.assert_no_pending_responses()


def test_a_bucket_can_be_checked_before_the_work(bucket: str) -> None:
    check_bucket.fn(bucket)
    with pytest.raises(SettingsError):
        check_bucket.fn("no-such-bucket-of-ours")


# --- progress -------------------------------------------------------------------------------------------------------


def test_no_prefect_server_is_asked_outside_a_run(bucket: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Creating an artifact outside a run would start one, which takes 16 s."""
    monkeypatch.setattr(runs, "create_progress_artifact", lambda **_: pytest.fail("a server was asked"))
    assert upload_dataset.fn(inspected(root), bucket).files_sent == 12


def test_an_upload_survives_a_progress_that_cannot_be_shown(
    bucket: str, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**_: object) -> None:
        message = "503 database is locked"
        raise RuntimeError(message)

    monkeypatch.setattr(runs, "in_run", lambda: True)
    for module in (runs, uploads):
        monkeypatch.setattr(module, "run_logger", lambda: logging.getLogger("uploads"))
    monkeypatch.setattr(runs, "create_progress_artifact", fail)
    assert upload_dataset.fn(inspected(root), bucket).files_sent == 12
    assert "no longer shown: 503 database is locked" in caplog.text


# --- a dataset that lies in S3 already ------------------------------------------------------------------------------


@pytest.fixture
def prefix(bucket: str, root: Path) -> str:
    for path in GOOD:
        client("s3").put_object(Bucket=bucket, Key=f"{root.name}/{path}", Body=(root / path).read_bytes())
    return f"s3://{bucket}/{root.name}"


def test_a_prefix_is_described_and_not_copied(s3: Spied, prefix: str, bucket: str) -> None:
    result = register_prefix.fn(DatasetSpec(source=prefix), bucket)
    assert result.files_sent == 0
    assert [put["Key"].rpartition("/")[2] for put in s3.puts] == ["dataset.json"]
    assert result.dataset.channels["train"].s3_uri == f"{prefix}/train/"
    assert result.dataset.classes == ("Größe 1", "cat")
    assert json.load(io.BytesIO(read(result.dataset.manifest_s3_uri)))["dataset"]["digest"] == result.dataset.digest


def test_an_empty_prefix_is_refused(bucket: str) -> None:
    with pytest.raises(DatasetError, match=f"There is nothing under s3://{bucket}/no-pets/: check the prefix"):
        register_prefix.fn(DatasetSpec(source=f"s3://{bucket}/no-pets"), bucket)


def test_a_prefix_in_no_bucket_is_refused(bucket: str) -> None:
    with pytest.raises(DatasetError, match="There is no bucket no-such-bucket-of-ours: check the URI"):
        register_prefix.fn(DatasetSpec(source="s3://no-such-bucket-of-ours/pets"), bucket)


def test_a_prefix_that_may_not_be_listed_is_refused(
    answering: Callable[..., Stubber], monkeypatch: pytest.MonkeyPatch
) -> None:
    answering("list_objects_v2", "AccessDenied", 403)
    monkeypatch.setattr(uploads, "_target", lambda bucket: bucket)
    with pytest.raises(DatasetError, match="theirs may not be listed with these credentials: allow s3:ListBucket"):
        register_prefix.fn(DatasetSpec(source="s3://theirs/pets"), "ours")

"""What SageMaker does around a training, on a plain machine: data from S3, the training script, its results to S3.

    python -m training.instance_job '{"name": …, "channels": …, "hyperparameters": …, "output_s3_uri": …}'

The model comes into TrainedModels/ of the working folder, and as model.tar.gz to S3, where a training job would put it,
with output.tar.gz beside it; result.json comes last, so that where it is, all is. Checkpoints go to S3 while the script
trains, and a second machine goes on from them.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)

_THREADS = 16
_TRIES = 5
_BROKEN_OFF = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError)
_SYNC_SECONDS = 30.0
_MODEL, _OUTPUT, _CHECKPOINTS, _DATA = Path("TrainedModels"), Path("output"), Path("checkpoints"), Path("data")
_SCRIPT = Path(__file__).with_name("train.py")


class InstanceJob:
    """One training on this machine.

    Args:
        spec: name, channels (by name: s3_uri, data_type), hyperparameters (JSON by name), metrics (as a training job's
            MetricDefinitions), output_s3_uri, checkpoints_s3_uri, machine (what is to be known of it later; launched_at
            in seconds of the epoch).
    """

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self._spec = spec
        self._s3 = boto3.client(
            "s3", config=Config(retries={"mode": "standard", "total_max_attempts": 10}, max_pool_connections=_THREADS)
        )
        self._launched_at = float(spec["machine"]["launched_at"])
        self._patterns = {metric["Name"]: re.compile(metric["Regex"]) for metric in spec["metrics"]}
        self._metrics: dict[str, float] = {}
        self._seconds = {"Starting": round(time.time() - self._launched_at, 3)}

    def run(self) -> int:
        """Run from the data to the results; return the script's exit code."""
        with self._phase("Downloading"):
            for name, channel in self._spec["channels"].items():
                self._download(name, channel)
            self._fetch_below(self._spec["checkpoints_s3_uri"].rstrip("/") + "/", _CHECKPOINTS)
        with self._phase("Training"), self._checkpoints_kept():
            code = self._train()
        if code == 0:
            with self._phase("Uploading"):
                self._upload_packed(_MODEL, "model.tar.gz")
                self._upload_packed(_OUTPUT, "output.tar.gz")
            self._upload_text(json.dumps(self._result(), indent=1), "result.json")
        return code

    def _result(self) -> dict[str, Any]:
        return {
            "name": self._spec["name"],
            "machine": self._spec["machine"],
            "metrics": self._metrics,
            "phase_seconds": self._seconds,
            "billable_seconds": round(time.time() - self._launched_at, 3),
        }

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()
        began = time.monotonic()
        yield
        self._seconds[name] = round(time.monotonic() - began, 3)

    def _train(self) -> int:
        """Run the script and return its exit code; its lines are passed on as they come, and read for metrics."""
        with subprocess.Popen(self._command(), env=self._environment(), stdout=subprocess.PIPE) as script:  # noqa: S603 - ours
            for line in script.stdout or ():
                sys.stdout.buffer.write(line)
                sys.stdout.flush()
                self._take_metrics(line.decode(errors="replace"))
        return script.returncode

    def _take_metrics(self, line: str) -> None:
        """Read a line as SageMaker does: of what is printed several times, the last counts."""
        for name, pattern in self._patterns.items():
            for value in pattern.findall(line):
                with suppress(ValueError):  # the pattern takes a lone "e" too
                    self._metrics[name] = float(value)

    def _command(self) -> list[str]:
        flags = [f"--{name}={json.loads(value)}" for name, value in self._spec["hyperparameters"].items()]
        return [sys.executable, "-u", str(_SCRIPT), *flags, "--checkpoint-dir", str(_CHECKPOINTS)]

    def _environment(self) -> dict[str, str]:
        channels = {f"SM_CHANNEL_{name.upper()}": str(_DATA / name) for name in self._spec["channels"]}
        return {**os.environ, **channels, "SM_MODEL_DIR": str(_MODEL), "SM_OUTPUT_DATA_DIR": str(_OUTPUT)}

    # --- from S3 -----------------------------------------------------------------------------------------------------

    def _download(self, name: str, channel: Mapping[str, str]) -> None:
        """Bring a channel: every object under a prefix, or exactly those that a manifest names."""
        folder = _DATA / name
        if channel["data_type"] == "S3Prefix":
            self._fetch_below(channel["s3_uri"], folder)
            return
        bucket, key = _place(channel["s3_uri"])
        first, *names = json.loads(self._s3.get_object(Bucket=bucket, Key=key)["Body"].read())
        self._fetch_all(first["prefix"], names, folder)

    def _fetch_below(self, uri: str, folder: Path) -> None:
        bucket, prefix = _place(uri)
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [item["Key"] for page in pages for item in page.get("Contents", []) if not item["Key"].endswith("/")]
        base = prefix.rpartition("/")[0] + "/"
        self._fetch_all(f"s3://{bucket}/{base}", [key.removeprefix(base) for key in keys], folder)

    def _fetch_all(self, prefix_uri: str, names: list[str], folder: Path) -> None:
        bucket, prefix = _place(prefix_uri)
        folder.mkdir(parents=True, exist_ok=True)

        def fetch(name: str) -> None:
            target = folder / _inside(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            self._fetch(bucket, prefix + name, target)

        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(fetch, names))

    def _fetch(self, bucket: str, key: str, target: Path) -> None:
        """Bring one object, by one request: of small files, boto3's download_file brings a quarter as many a second.

        botocore repeats a request that failed, and not a body that broke off on its way.
        """
        for tries_left in reversed(range(_TRIES)):
            try:
                body = self._s3.get_object(Bucket=bucket, Key=key)["Body"]
                with target.open("wb") as file:
                    shutil.copyfileobj(body, file)
            except _BROKEN_OFF:
                if not tries_left:
                    raise
            else:
                return

    # --- to S3 -------------------------------------------------------------------------------------------------------

    @contextmanager
    def _checkpoints_kept(self) -> Iterator[None]:
        """Send checkpoints as they change, from a thread; trouble with them costs time later, not the training now."""
        ended, sent = threading.Event(), dict[Path, int]()

        def keep() -> None:
            while not ended.wait(_SYNC_SECONDS):
                self._send_checkpoints(sent)

        sender = threading.Thread(target=keep, daemon=True)
        sender.start()
        try:
            yield
        finally:
            ended.set()
            sender.join()
            self._send_checkpoints(sent)

    def _send_checkpoints(self, sent: dict[Path, int]) -> None:
        for path in sorted(_CHECKPOINTS.rglob("*")):
            try:
                # Files that begin with a dot are being written; the whole one gets its name at once.
                if path.is_file() and not path.name.startswith(".") and sent.get(path) != path.stat().st_mtime_ns:
                    changed = path.stat().st_mtime_ns
                    uri = f"{self._spec['checkpoints_s3_uri'].rstrip('/')}/{path.relative_to(_CHECKPOINTS).as_posix()}"
                    self._s3.upload_file(str(path), *_place(uri))
                    sent[path] = changed
            except (OSError, ClientError, BotoCoreError) as error:
                sys.stderr.write(f"The checkpoint {path.name} could not be kept: {error}\n")

    def _upload_packed(self, folder: Path, name: str) -> None:
        packed = Path(name)
        with tarfile.open(packed, mode="w:gz", compresslevel=1) as archive:
            for path in sorted(folder.rglob("*")):
                archive.add(path, arcname=path.relative_to(folder).as_posix(), recursive=False)
        self._s3.upload_file(str(packed), *_place(f"{self._spec['output_s3_uri']}/{name}"))
        packed.unlink()

    def _upload_text(self, text: str, name: str) -> None:
        bucket, key = _place(f"{self._spec['output_s3_uri']}/{name}")
        self._s3.put_object(Bucket=bucket, Key=key, Body=text.encode(), ContentType="application/json")


def _place(uri: str) -> tuple[str, str]:
    """Return the bucket and the key of an S3 URI; a key may hold what other URIs give a meaning to, as # and ?."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def _inside(name: str) -> PurePosixPath:
    """Return a key as a place below a folder.

    Raises:
        ValueError: It would lie elsewhere.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        msg = f"the key {name!r} would be written outside of its folder"
        raise ValueError(msg)
    return path


def main() -> None:
    """Run the job that the one argument describes; what AWS refuses ends with one sentence and code 1."""
    try:
        code = InstanceJob(json.loads(sys.argv[1])).run()
    except (ClientError, BotoCoreError, ValueError) as error:
        sys.exit(f"error: {error}")
    sys.exit(code)


if __name__ == "__main__":
    main()

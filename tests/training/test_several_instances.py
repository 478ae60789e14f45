"""Several instances train one model: each test is one that the usual fraud, N machines doing the same work, would fail.

Every host is a process of the training program with the environment that SageMaker's script mode gives it, and a tree
like /opt/ml of its own.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from training.augmentation import augment, draw_chances
from training.sharding import Share

pytestmark = pytest.mark.slow

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
SPLITS = ("train", "valid", "test")
COMMON = ("--epochs", 2, "--patience", 9, "--image-size", 16, "--batch-size", 8, "--augmentation", 0)
LONG = ("--epochs", 500, "--patience", 500, "--image-size", 16, "--batch-size", 8)
RESNET = ("--architecture", "resnet18", "--image-size", 32, "--batch-size", 13, "--epochs", 1, "--augmentation", 0)
LOOPBACK = next(name for _, name in socket.if_nameindex() if name in {"lo", "lo0"})
WITHIN_SECONDS = 60
TWO_PROCESSES = pytest.param(
    "two_processes", marks=pytest.mark.skipif(torch.cuda.device_count() == 1, reason="there is a GPU for one only")
)


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


class Training:
    """The hosts of one job.

    Args:
        folder: Gets each host's tree.
        data: One folder for all, or, for channels in shards, one for each host.
        hosts: How many SM_HOSTS names.
    """

    def __init__(self, folder: Path, data: Path | Sequence[Path], hosts: int = 2, **environ: str) -> None:
        self.folder, self.hosts = folder, [f"algo-{number + 1}" for number in range(hosts)]
        self.data, self.environ = data, environ
        self.where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
        self.processes: list[subprocess.Popen[str]] = []
        self.spied = True

    def start(self, *flags: object, only: int | None = None) -> "Training":
        for number in range(len(self.hosts)) if only is None else [only]:
            spy = [HERE / "spy.py", self.base(number) / "spy.log"] if self.spied else []
            command = [sys.executable, *spy, ROOT / "training" / "train.py"]
            self.base(number).mkdir(parents=True, exist_ok=True)
            self.processes.append(
                subprocess.Popen(
                    [*map(str, command), *map(str, flags)],
                    env=self._environment(number),
                    stdout=subprocess.PIPE,
                    stderr=(self.base(number) / "stderr").open("w"),
                    text=True,
                )
            )
        return self

    def base(self, number: int) -> Path:
        return self.folder / f"algo-{number + 1}"

    def _environment(self, number: int) -> dict[str, str]:
        base, common = self.base(number), isinstance(self.data, Path)
        data = self.data if isinstance(self.data, Path) else self.data[number]
        distribution = "FullyReplicated" if common else "ShardedByS3Key"
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("SM_", "SAGEMAKER_", "PYTHON"))
        }
        return {
            **kept,
            **{f"SM_CHANNEL_{split.upper()}": str(data / split) for split in SPLITS},
            "SM_INPUT_DATA_CONFIG": json.dumps({split: {"S3DistributionType": distribution} for split in SPLITS}),
            "SM_HOSTS": json.dumps(self.hosts),
            "SM_CURRENT_HOST": self.hosts[number],
            "SM_NETWORK_INTERFACE_NAME": LOOPBACK,
            "SM_NUM_GPUS": "0",
            "SM_MODEL_DIR": str(base / "model"),
            "SM_OUTPUT_DATA_DIR": str(base / "output" / "data"),
            "SAGEMAKER_BASE_DIR": str(base),
            "OMP_NUM_THREADS": "1",
            # On a machine with a GPU they share it, which nccl allows hosts only.
            "NCCL_HOSTID": self.hosts[number],
            # There, numbers of ten bits of mantissa would hide what the ranks may differ by.
            "NVIDIA_TF32_OVERRIDE": "0",
            **self.where,
            **self.environ,
        }

    def await_line(self, beginning: str) -> None:
        """Wait until the first host says a line."""
        stdout = self.processes[0].stdout
        assert stdout is not None
        assert any(line.startswith(beginning) for line in stdout), self.stderr()

    def end(self) -> list[int]:
        """Wait for all; return their exit codes."""
        self.stdouts = [process.communicate(timeout=2 * WITHIN_SECONDS)[0] for process in self.processes]
        return [process.returncode for process in self.processes]

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()

    def stderr(self) -> list[str]:
        return [file.read_text() for file in sorted(self.folder.glob("*/stderr"))]

    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads((self.base(0) / "output" / "data" / "report.json").read_text())
        return report

    def steps(self) -> list[list[list[str]]]:
        """Return, for each process, the pictures of each step."""
        logs = sorted(self.folder.glob("*/spy.*"))
        return [[json.loads(line) for line in log.read_text().splitlines()] for log in logs]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    """Make a training whose processes are gone after the test, whatever happens."""
    made: list[Training] = []

    def make(*arguments: Any, name: str = "job", spied: bool = False, **more: Any) -> Training:
        made.append(Training(tmp_path / name, *arguments, **more))
        made[-1].spied = spied
        return made[-1]

    yield make
    for training in made:
        training.kill()


@pytest.fixture(scope="module")
def shards(some_colours: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same pictures over three hosts: uneven, each lacks a class, the third has two pictures to train with only."""
    folders = [tmp_path_factory.mktemp("shards") / f"algo-{number + 1}" for number in range(3)]
    for number, path in enumerate(sorted(some_colours.rglob("*.png"))):
        split, label, _ = path.relative_to(some_colours).parts
        host = {"red": 0, "green": number % 2, "blue": 1}[label]
        if split == "train" and label == "blue" and path.name in {"3.png", "5.png"}:
            host = 2
        target = folders[host] / path.relative_to(some_colours)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return folders


def ended(training: Training) -> Training:
    codes = training.end()
    assert set(codes) == {0}, training.stderr()
    return training


@pytest.fixture(scope="module")
def alone(some_colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Training:
    return ended(Training(tmp_path_factory.mktemp("alone"), some_colours, 1).start(*COMMON))


@pytest.fixture(scope="module")
def two(some_colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Training:
    return ended(Training(tmp_path_factory.mktemp("two"), some_colours, 2).start(*COMMON))


@pytest.fixture(scope="module")
def two_processes(some_colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Training:
    training = Training(tmp_path_factory.mktemp("processes"), some_colours, 1)
    training.where = {}
    return ended(training.start(*COMMON, "--processes-per-instance", 2))


@pytest.fixture(scope="module")
def three_shards(shards: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Training:
    return ended(Training(tmp_path_factory.mktemp("three"), shards, 3).start(*COMMON))


def curve(training: Training) -> list[float]:
    names = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy")
    return [epoch[name] for epoch in training.report()["epochs"] for name in names]


# --- one model ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["two", TWO_PROCESSES, "three_shards"])
def test_all_ranks_hold_bit_identical_weights_after_training(name: str, request: pytest.FixtureRequest) -> None:
    report = request.getfixturevalue(name).report()
    digests = report["ranks"]["weights_digests"]
    assert len(digests) == report["ranks"]["world_size"] == (3 if name == "three_shards" else 2)
    assert len(set(digests)) == 1
    assert digests[0].startswith(report["model_version"])


@pytest.mark.parametrize("name", ["two", TWO_PROCESSES, "three_shards"])
def test_the_ranks_see_each_picture_exactly_once_an_epoch(
    name: str, alone: Training, request: pytest.FixtureRequest
) -> None:
    training = request.getfixturevalue(name)
    every = {picture for step in alone.steps()[0] for picture in step}
    assert len(every) == 39
    ranks = training.steps()
    assert len({len(steps) for steps in ranks}) == 1, "not all ranks took the same number of steps"
    half = len(ranks[0]) // 2
    for epoch in (slice(0, half), slice(half, None)):
        seen = Counter(picture for steps in ranks for step in steps[epoch] for picture in step)
        assert seen == dict.fromkeys(every, 1)
    taken = sorted(sum(map(len, steps[:half])) for steps in ranks)
    assert taken == sorted(training.report()["ranks"]["train_pictures"])


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the system does not show threads there")
@pytest.mark.parametrize("name", ["two", TWO_PROCESSES])
def test_no_thread_of_the_group_outlives_it(name: str, request: pytest.FixtureRequest) -> None:
    """One that wants the interpreter while it ends aborts the process, now and then, after all the work is done."""
    left = [file.read_text().split() for file in request.getfixturevalue(name).folder.glob("*/threads.*")]
    assert len(left) == 2
    assert not [thread for threads in left for thread in threads if "gloo" in thread]


@pytest.mark.parametrize("held", [(39,) * 1, (39,) * 2, (39,) * 3, (5,) * 7])
@pytest.mark.parametrize("batch_size", [1, 8, 64])
def test_of_what_all_ranks_hold_each_takes_its_slice_of_every_batch(held: tuple[int, ...], batch_size: int) -> None:
    whole = Share(held[:1]).parts(batch_size, 1, 1)
    parts = [Share(held, rank).parts(batch_size, 1, 1) for rank in range(len(held))]
    for step, batch in enumerate(whole):
        assert torch.equal(torch.cat([part[step].places for part in parts]), batch.places)
        assert {part[step].count for part in parts} == {len(batch.places)}
        assert [part[step].first for part in parts] == [
            sum(len(part[step].places) for part in parts[:rank]) for rank in range(len(held))
        ]
    taken = [sum(len(part.places) for part in rank) for rank in parts]
    assert taken == Share(held).taken_by_rank(batch_size)


@pytest.mark.parametrize("held", [(20, 19), (30, 9, 0), (1, 1, 37)])
@pytest.mark.parametrize("batch_size", [1, 8, 64])
def test_of_what_ranks_hold_apart_each_takes_all_in_the_same_number_of_steps(
    held: tuple[int, ...], batch_size: int
) -> None:
    ranks = [Share(held, rank, common=False).parts(batch_size, 1, 1) for rank in range(len(held))]
    for rank, parts in enumerate(ranks):
        assert sorted(place for part in parts for place in part.places.tolist()) == list(range(held[rank]))
    for parts_of_step in zip(*ranks, strict=True):
        sizes = [len(part.places) for part in parts_of_step]
        assert {part.count for part in parts_of_step} == {sum(sizes)}
        assert sum(sizes) <= batch_size + len(held)
        assert [part.first for part in parts_of_step] == [sum(sizes[:rank]) for rank in range(len(held))]


def test_the_global_batch_does_not_grow_with_the_ranks(alone: Training, two: Training) -> None:
    """Whose batch it is decides the learning rate: each step of two ranks is the very batch of one."""
    batches = [sorted(first + second) for first, second in zip(*two.steps(), strict=True)]
    assert batches == [sorted(step) for step in alone.steps()[0]]


@pytest.mark.parametrize("name", ["two", TWO_PROCESSES])
def test_two_ranks_have_the_loss_curve_of_one(name: str, alone: Training, request: pytest.FixtureRequest) -> None:
    assert curve(request.getfixturevalue(name)) == pytest.approx(curve(alone), rel=2e-3)


def test_a_batchnorm_backbone_has_the_loss_curve_of_one_rank(some_colours: Path, start: Any) -> None:
    """The first steps of AdamW are as long for a gradient of 1e-9 as of 1: a higher rate would show rounding errors."""
    flags = (*RESNET, "--learning-rate", 3e-5)
    one, two = (ended(start(some_colours, hosts, name=f"of-{hosts}").start(*flags)) for hosts in (1, 2))
    assert curve(two) == pytest.approx(curve(one), rel=2e-3)


def test_gradients_and_statistics_of_a_step_are_those_of_the_whole_batch() -> None:
    """In double precision there is no excuse; also when a rank has no picture at all."""
    port, environ = free_port(), {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "one_step.py")]
    processes = [
        subprocess.Popen([*command, str(rank), port], cwd=ROOT, env=environ | {"PYTHONPATH": str(ROOT)}, stdout=-1)
        for rank in (0, 1)
    ]
    for process in processes:
        stdout, _ = process.communicate(timeout=2 * WITHIN_SECONDS)
        assert process.returncode == 0
        for case, (gradients, statistics) in json.loads(stdout).items():
            assert gradients < 1e-10, case
            assert statistics < 1e-10, case


@pytest.mark.parametrize("name", ["two", "three_shards"])
def test_the_report_is_that_of_one_rank(name: str, alone: Training, request: pytest.FixtureRequest) -> None:
    ours, theirs = request.getfixturevalue(name).report(), alone.report()
    assert set(ours) == set(theirs)
    for same in ("classes", "counts", "skipped_files"):
        assert ours[same] == theirs[same]
    files = [[(one["file"], one["label"]) for one in report["test"]["predictions"]] for report in (ours, theirs)]
    assert files[0] == files[1]
    assert sum(map(sum, ours["test"]["confusion"])) == len(files[0])


def test_channels_in_shards_are_told_in_the_report(two: Training, three_shards: Training) -> None:
    assert two.report()["ranks"]["sharded"] == []
    assert three_shards.report()["ranks"]["sharded"] == sorted(SPLITS)
    assert three_shards.report()["ranks"]["hosts"] == ["algo-1", "algo-2", "algo-3"]


def test_augmentation_does_not_depend_on_the_number_of_ranks() -> None:
    images, chances = torch.rand(5, 3, 8, 8), draw_chances(5, torch.device("cpu"))
    whole = augment(images, chances, 1, mirror=True)
    parts = [augment(images[part], chances[part], 1, mirror=True) for part in (slice(0, 3), slice(3, 3), slice(3, 5))]
    assert torch.allclose(torch.cat(parts), whole, atol=1e-6)
    assert not torch.allclose(whole, images)


# --- one voice ------------------------------------------------------------------------------------------------------


def test_the_first_rank_alone_prints_metrics_and_writes(two: Training, three_shards: Training) -> None:
    for training in (two, three_shards):
        first, *others = training.stdouts
        assert len(re.findall(r"^epoch=", first, re.MULTILINE)) == 2
        assert "test_accuracy=" in first
        for number, stdout in enumerate(others, 1):
            assert not re.search(r"(loss|accuracy)=", stdout)
            assert f"rank {number} (algo-{number + 1}) of {len(training.hosts)}" in stdout
            assert not (training.base(number) / "model").exists()
            assert not (training.base(number) / "output").exists()
        assert (training.base(0) / "model" / "model.json").exists()
        assert training.stderr() == [""] * len(training.hosts)


# --- one fate -------------------------------------------------------------------------------------------------------


def assert_failed(training: Training, number: int, reason: str) -> None:
    assert training.processes[number].returncode == 1
    assert re.fullmatch(rf"error: {reason}.*\n", training.stderr()[number])
    assert not list(training.folder.glob("*/model/model.json"))


@pytest.mark.parametrize("victim", [0, 1])
def test_one_rank_killed_fails_the_others_with_the_reason_and_leaves_no_model(
    victim: int, many_colours: Path, start: Any
) -> None:
    training = start(many_colours).start(*LONG)
    training.await_line("epoch=1 ")
    training.processes[victim].send_signal(signal.SIGKILL)
    began = time.monotonic()
    training.end()
    assert time.monotonic() - began < WITHIN_SECONDS
    assert_failed(training, 1 - victim, rf"rank {victim} \(algo-{victim + 1}\) is lost: ")


def test_a_frozen_rank_fails_the_others(many_colours: Path, start: Any) -> None:
    """Its connections stay as they are, so only its silence tells."""
    training = start(many_colours).start(*LONG, "--rank-timeout-seconds", 3)
    training.await_line("epoch=1 ")
    training.processes[1].send_signal(signal.SIGSTOP)
    training.processes[0].communicate(timeout=WITHIN_SECONDS)
    training.kill()
    assert_failed(training, 0, r"rank 1 \(algo-2\) is lost: no sign of life for 3 s")


def test_a_hanging_rank_fails_itself_and_the_others(many_colours: Path, start: Any) -> None:
    """It lives, answers, and does nothing."""
    training = start(many_colours, spied=True).start(*LONG, "--rank-timeout-seconds", 3, only=0)
    training.environ["SPY_SLEEPS"] = "30"
    training.start(*LONG, "--rank-timeout-seconds", 3, only=1).end()
    for number in (0, 1):
        assert_failed(training, number, r"rank 1 \(algo-2\) hangs: it has not computed anything for 3 s")


@pytest.mark.parametrize("present", [0, 1])
def test_a_rank_that_never_comes_fails_the_others(present: int, some_colours: Path, start: Any) -> None:
    training = start(some_colours).start(*COMMON, "--join-timeout-seconds", 2, only=present)
    training.end()
    missing = 1 - present
    assert training.processes[0].returncode == 1
    assert re.fullmatch(
        rf"error: rank {missing} \(algo-{missing + 1}\) did not come within 2 s.*\n", training.stderr()[0]
    )
    assert not list(training.folder.glob("*/model/model.json"))


def test_what_is_wrong_on_one_host_is_the_reason_on_all(some_colours: Path, tmp_path: Path, start: Any) -> None:
    other = shutil.copytree(some_colours, tmp_path / "other")
    (other / "valid" / "red").rename(other / "valid" / "rouge")
    training = start([some_colours, other]).start(*COMMON)
    training.end()
    assert_failed(training, 1, "valid has classes that train lacks: rouge")
    assert_failed(training, 0, r"rank 1 \(algo-2\): valid has classes that train lacks: rouge")


def test_hosts_that_should_have_the_same_pictures_and_have_not_are_refused(
    some_colours: Path, tmp_path: Path, start: Any
) -> None:
    other = shutil.copytree(some_colours, tmp_path / "other")
    (other / "train" / "red" / "1.png").unlink()
    replicated = json.dumps({"train": {"S3DistributionType": "FullyReplicated"}})
    training = start([some_colours, other], SM_INPUT_DATA_CONFIG=replicated).start(*COMMON)
    training.end()
    assert "the instances have different train pictures" in training.stderr()[0]
    assert 0 not in {process.returncode for process in training.processes}


def test_different_hyperparameters_are_refused(some_colours: Path, start: Any) -> None:
    training = start(some_colours).start(*COMMON, only=0).start(*COMMON, "--seed", 1, only=1)
    training.end()
    assert 0 not in {process.returncode for process in training.processes}
    assert "trains with another seed than the others" in training.stderr()[0]


# --- several processes of one instance ------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(line) for line in found.split()]


@pytest.mark.skipif(torch.cuda.is_available(), reason="the ranks would ask for the GPUs that are only pretended")
def test_by_hand_a_machine_with_two_gpus_trains_in_two_processes(
    some_colours: Path, tmp_path: Path, run_train: Any
) -> None:
    """Here on the processor; the GPUs are counted once, by the process that starts the others."""
    program, model = tmp_path / "nvidia-smi", tmp_path / "model"
    program.write_text(f"#!/bin/sh\necho asked >> {tmp_path}/asked\necho 'GPU 0: one'\necho 'GPU 1: another'\n")
    program.chmod(0o700)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = run_train("--data", some_colours, "--model_dir", model, *COMMON, PATH=path)
    assert done.returncode == 0, done.stderr
    assert json.loads((model / "report.json").read_text())["ranks"]["world_size"] == 2
    assert (tmp_path / "asked").read_text() == "asked\n"


@pytest.mark.parametrize("signalled", ["a process", "their parent"])
def test_the_processes_of_an_instance_end_together(signalled: str, many_colours: Path, start: Any) -> None:
    training = start(many_colours, 1, CUDA_VISIBLE_DEVICES="")
    training.where = {}
    training.start(*LONG, "--processes-per-instance", 2)
    training.await_line("epoch=1 ")
    parent = training.processes[0].pid
    ranks = children(parent)
    assert len(ranks) == 2
    if signalled == "a process":
        os.kill(ranks[1], signal.SIGKILL)
    else:
        os.kill(parent, signal.SIGTERM)
    code = training.end()[0]
    assert code == 128 + (signal.SIGKILL if signalled == "a process" else signal.SIGTERM)
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks)
    if signalled == "a process":
        assert "error: rank 1 (algo-1, process 1) was ended by SIGKILL\n" in training.stderr()[0]


# --- checkpoints ----------------------------------------------------------------------------------------------------


def test_a_killed_training_goes_on_from_the_first_ranks_checkpoint_alone(
    some_colours: Path, start: Any, two: Training
) -> None:
    flags = (*COMMON, "--checkpoint-seconds", 0)
    killed = start(some_colours)
    for number in (0, 1):
        (killed.base(number) / "checkpoints").mkdir(parents=True)
    # What another host finds in its folder is of no account, whatever it is.
    strange = killed.base(1) / "checkpoints" / "checkpoint.pt"
    strange.write_bytes(b"another training's")
    killed.start(*flags)
    killed.await_line("epoch=1 ")
    killed.kill()
    assert strange.read_bytes() == b"another training's"
    killed.processes, killed.where["MASTER_PORT"] = [], free_port()
    ended(killed.start(*flags))
    report = killed.report()
    assert report["resumed_from_epoch"] >= 1
    assert "Resuming from the checkpoint: epoch " in killed.stdouts[0]
    assert report["model_version"] == two.report()["model_version"]

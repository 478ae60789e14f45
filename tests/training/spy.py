"""Run a program and write down which pictures a SmallCnn learns from: `python spy.py LOG PROGRAM FLAGS`.

LOG gets a line a step, with the digest of each picture, and a file beside it the threads that were left when the
program had done its work. With SPY_SLEEPS=N the program falls asleep for good in step N.
"""

import atexit
import hashlib
import json
import os
import runpy
import sys
import time
from pathlib import Path
from typing import Any

# As train.py does for itself; read when torch is imported.
os.environ["TORCH_CPP_LOG_LEVEL"] = "FATAL"

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

log, sys.argv = Path(sys.argv[1]), sys.argv[2:]
steps = 0


def note(module: nn.Module, inputs: Any) -> None:
    global steps  # noqa: PLW0603 - a script of one purpose
    if type(module).__name__ != "SmallCnn" or not module.training:
        return
    steps += 1
    if str(steps) == os.environ.get("SPY_SLEEPS"):
        time.sleep(600)
    seen = [hashlib.sha256(picture.cpu().contiguous().numpy().tobytes()).hexdigest()[:16] for picture in inputs[0]]
    with log.with_suffix(f".{os.getpid()}").open("a") as file:
        file.write(json.dumps(seen) + "\n")


@atexit.register
def note_threads() -> None:
    if steps:
        names = [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]
        log.with_name(f"threads.{os.getpid()}").write_text("\n".join(names))


register_module_forward_pre_hook(note)
runpy.run_path(sys.argv[0], run_name="__main__")

"""Train an image classifier: `python -m training.train --data FOLDER --epochs 3`; in a job, `python training/train.py`.

FOLDER holds train, valid and test, each with one folder of pictures for each class. The model package comes into
TrainedModels, with report.json beside it; `--help` names everything else. In a SageMaker job the SM_* variables
say where things are.

Several instances train one model: each runs this program, SM_HOSTS and SM_CURRENT_HOST say who they are, and they meet
at MASTER_ADDR and MASTER_PORT. So do several processes on one machine: `--processes-per-instance 2`, by itself one for
each GPU. All of them share `batch_size` pictures a step, so neither learning rate nor outcome depends on how many they
are. The first writes the model, after all have shown that they hold the same weights; when one is lost, all fail.
"""

import os
import sys
import time
from pathlib import Path

_STARTED = time.perf_counter()
# OpenMP's threads spin while they wait: two trainings on one machine then take 7 times as long as one. With a short
# spin they share, and one alone is as fast as before. Read when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# torch and nccl tell of a broken connection with a page of C++; that a rank is lost is said in one sentence.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")

if not __package__:
    # Run as a script: without its own folder on the path, whose modules would hide others of the same name.
    _here = Path(__file__).resolve().parent
    sys.path[:] = [str(_here.parent), *(entry for entry in sys.path if Path(entry or ".").resolve() != _here)]

from training.arguments import parse_arguments  # noqa: E402 - the path had to be put right first
from training.errors import TrainingError  # noqa: E402 - the same
from training.processes import run_processes  # noqa: E402 - the same


def main() -> None:
    """Run what the command line asks for; what is expected to go wrong ends with one sentence and code 1."""
    try:
        arguments = parse_arguments(sys.argv[1:], os.environ)
        if arguments.cluster.local_rank is None:
            sys.exit(run_processes(arguments.cluster))
        from training.job import run_job  # noqa: PLC0415 - torch takes a second or more, --help does without

        run_job(arguments, time.perf_counter() - _STARTED)
    except TrainingError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

"""What a training says while it runs: lines on stdout, which are the job's log and where its metrics are read from."""

import sys

from training.report import Epoch


def say(sentence: str) -> None:
    """Write a line at once: a log that is read live shows nothing that waits in a buffer."""
    sys.stdout.write(f"{sentence}\n")
    sys.stdout.flush()


def say_epoch(epoch: Epoch) -> None:
    """Write an epoch's metrics in the form that SageMaker's metric expressions read."""
    say(
        f"epoch={epoch.epoch} train_loss={epoch.train_loss:.6f} train_accuracy={epoch.train_accuracy:.6f} "
        f"valid_loss={epoch.valid_loss:.6f} valid_accuracy={epoch.valid_accuracy:.6f} "
        f"learning_rate={epoch.learning_rate:.8f} seconds={epoch.seconds:.3f}"
    )


def say_best(epoch: Epoch) -> None:
    """Write the validation of the weights that are kept: SageMaker takes the last value it finds for the final one."""
    say(f"best_epoch={epoch.epoch} valid_loss={epoch.valid_loss:.6f} valid_accuracy={epoch.valid_accuracy:.6f}")

"""Why a training cannot be: each is one sentence for the person who asked for it.

TrainingError
  ArgumentError    a flag, a hyperparameter or a folder that makes no sense
  DatasetError     pictures that nothing can be learnt from
  WeightsError     starting weights that do not fit, or cannot be read
  DivergedError    the loss ran away before there was anything to keep
  RankError        one of several processes that train together is lost
"""


class TrainingError(Exception):
    """Base of all that is expected to go wrong; its message is one clear sentence."""


class ArgumentError(TrainingError):
    """A flag, a hyperparameter or a folder makes no sense."""


class DatasetError(TrainingError):
    """Nothing can be learnt from these pictures."""


class WeightsError(TrainingError):
    """The starting weights do not fit, or cannot be read."""


class DivergedError(TrainingError):
    """The loss is not a number any more, and no epoch before it can be kept."""


class RankError(TrainingError):
    """Of several processes that train together one did not come, is lost, or is not like the others."""

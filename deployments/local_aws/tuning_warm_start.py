"""Which tuning jobs can be the parents of another one.

https://docs.aws.amazon.com/sagemaker/latest/dg/automatic-model-tuning-warm-start.html
"""

from collections.abc import Mapping
from typing import Any

from deployments.local_aws.records import invalid
from deployments.local_aws.tuning_descriptions import ENDED

_MOST_TRIALS = 750
_SAME_FOR_IDENTICAL = ("InputDataConfig", "AlgorithmSpecification")
_KINDS = ("IntegerParameterRanges", "ContinuousParameterRanges", "CategoricalParameterRanges")


def check_parent(request: Mapping[str, Any], parent: Mapping[str, Any]) -> None:
    """Refuse a parent whose results say nothing of the new job.

    Raises:
        AwsError: ValidationException that names the parent and why.
    """
    name, status = parent["HyperParameterTuningJobName"], parent["HyperParameterTuningJobStatus"]
    if request["HyperParameterTuningJobConfig"]["Strategy"] == "Grid":
        message = "The strategy Grid tries every combination: there is nothing that a warm start could change"
        raise invalid(message)
    if status not in ENDED:
        message = (
            f"The parent tuning job {name} is in status {status}: parents must be Completed, Stopped, or Failed "
            "before a warm start"
        )
        raise invalid(message)
    if _objective(request) != _objective(parent):
        message = f"The objective metric must be the same as for all parent jobs, and {name} has {_objective(parent)}"
        raise invalid(message)
    if _parameters(request) != _parameters(parent):
        message = (
            "The total number of static plus tunable hyperparameters must remain the same as it is in all parent jobs: "
            f"{name} has {_parameters(parent)}, and this job would have {_parameters(request)}"
        )
        raise invalid(message)
    if request["WarmStartConfig"]["WarmStartType"] == "IdenticalDataAndAlgorithm":
        _check_identical(request, parent)


def check_total(trials: int) -> None:
    """Refuse a job that has too many training jobs together with its parents.

    Raises:
        AwsError: ValidationException that says how many.
    """
    if trials > _MOST_TRIALS:
        message = (
            f"The training jobs of parents count against the limit of {_MOST_TRIALS} training jobs for a tuning job, "
            f"and there would be {trials}"
        )
        raise invalid(message)


def _check_identical(request: Mapping[str, Any], parent: Mapping[str, Any]) -> None:
    mine, theirs = request["TrainingJobDefinition"], parent["TrainingJobDefinition"]
    different = [member for member in _SAME_FOR_IDENTICAL if mine.get(member) != theirs.get(member)]
    if different:
        message = (
            "With the warm start type IdenticalDataAndAlgorithm, input data and training image must be those of the "
            f"parents, and {parent['HyperParameterTuningJobName']} has another {' and '.join(different)}"
        )
        raise invalid(message)


def _objective(request: Mapping[str, Any]) -> dict[str, str]:
    objective: dict[str, str] = request["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]
    return objective


def _parameters(request: Mapping[str, Any]) -> int:
    ranges = request["HyperParameterTuningJobConfig"]["ParameterRanges"]
    tuned = sum(len(ranges.get(kind, [])) for kind in _KINDS)
    return tuned + len(request["TrainingJobDefinition"].get("StaticHyperParameters", {}))

"""What a tuning job's request must be beyond what the service's model says, and what it asks of each trial."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deployments.local_aws import script_mode
from deployments.local_aws.protocol import AwsError
from deployments.local_aws.records import invalid
from deployments.local_aws.supported import refuse_unsupported
from deployments.local_aws.training_requests import check_training_request
from deployments.local_aws.tuning_ranges import Choice, Range, combinations, read_ranges

OBJECTIVE_PARAMETER = "_tuning_objective_metric"  # SageMaker adds it to the hyperparameters of every trial
_RESOURCE_PARAMETERS = ("epochs", "numepochs", "n-epochs", "n_epochs", "num_epochs")
_MOST_RESOURCE = 20_000
_MOST_RANGES = 30
_MOST_PARAMETERS = 100
_MOST_PARALLEL_TRIALS = 10
_MOST_TRIALS = 750
_LONGEST_VALUE = 2500
# Of a definition, what is the trial's own business under the same name.
_PASSED_ON = (
    "AlgorithmSpecification",
    "EnableInterContainerTrafficEncryption",
    "EnableManagedSpotTraining",
    "EnableNetworkIsolation",
    "Environment",
    "InputDataConfig",
    "OutputDataConfig",
    "ResourceConfig",
    "RoleArn",
    "StoppingCondition",
    "VpcConfig",
)


@dataclass(frozen=True)
class TuningConfig:
    """What a request asks of the search, with SageMaker's defaults where it says nothing."""

    strategy: str
    metric: str
    minimize: bool
    ranges: tuple[Range, ...]
    most_trials: int
    most_parallel_trials: int
    most_seconds: float | None
    early_stopping: bool
    seed: int | None
    min_resource: int
    max_resource: int
    target: float | None
    not_improving: int | None  # the number of trials after which the search is over


def read_tuning_request(request: Mapping[str, Any]) -> TuningConfig:
    """Return what the request asks of the search.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_HyperParameterTuningJobConfig.html

    Raises:
        AwsError: ValidationException or ResourceLimitExceeded: the job could only fail.
    """
    _check_members(request)
    config = request["HyperParameterTuningJobConfig"]
    objective, limits = config["HyperParameterTuningJobObjective"], config["ResourceLimits"]
    criteria = config.get("TuningJobCompletionCriteria", {})
    ranges = tuple(read_ranges(config["ParameterRanges"]))
    _check_parameters(request["TrainingJobDefinition"], ranges)
    _check_objective(request)
    min_resource, max_resource = _resources(request)
    return TuningConfig(
        strategy=config["Strategy"],
        metric=objective["MetricName"],
        minimize=objective["Type"] == "Minimize",
        ranges=ranges,
        most_trials=_most_trials(config, ranges),
        most_parallel_trials=_most_parallel_trials(limits),
        most_seconds=limits.get("MaxRuntimeInSeconds"),
        early_stopping=config.get("TrainingJobEarlyStoppingType", "Off") == "Auto",
        seed=config.get("RandomSeed"),
        min_resource=min_resource,
        max_resource=max_resource,
        target=criteria.get("TargetObjectiveMetricValue"),
        not_improving=criteria.get("BestObjectiveNotImproving", {}).get("MaxNumberOfTrainingJobsNotImproving"),
    )


def check_trial(request: Mapping[str, Any], config: TuningConfig) -> None:
    """Refuse a tuning job whose trials would be refused.

    Raises:
        AwsError: ValidationException that says what is wrong.
    """
    example = {one.name: one.values[0] if isinstance(one, Choice) else one.text(one.low) for one in config.ranges}
    trial = trial_request(request, request["HyperParameterTuningJobName"], example, [])
    refuse_unsupported("CreateTrainingJob", trial)
    check_training_request(trial)


def trial_request(
    request: Mapping[str, Any], name: str, tuned: Mapping[str, str], tags: list[dict[str, str]]
) -> dict[str, Any]:
    """Return the request for a training job of a tuning job.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_HyperParameterTrainingJobDefinition.html
    """
    definition = request["TrainingJobDefinition"]
    metric = request["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]["MetricName"]
    static = definition.get("StaticHyperParameters", {})
    return {
        **{member: definition[member] for member in _PASSED_ON if member in definition},
        "TrainingJobName": name,
        "HyperParameters": {**static, **tuned, OBJECTIVE_PARAMETER: metric},
        "Tags": tags,
    }


def _check_members(request: Mapping[str, Any]) -> None:
    config = request["HyperParameterTuningJobConfig"]
    for where, member in (
        (request, "TrainingJobDefinition"),
        (config, "HyperParameterTuningJobObjective"),
        (config, "ParameterRanges"),
    ):
        if member not in where:
            message = f"{member} is required: the local AWS tunes one algorithm in a job, and has no Autotune"
            raise invalid(message)
    if config["Strategy"] == "Hyperband" and config.get("TrainingJobEarlyStoppingType") == "Auto":
        message = (
            "TrainingJobEarlyStoppingType must be Off with the strategy Hyperband, "
            "which has its own internal early stopping mechanism"
        )
        raise invalid(message)


def _check_parameters(definition: Mapping[str, Any], ranges: tuple[Range, ...]) -> None:
    names, static = [one.name for one in ranges], definition.get("StaticHyperParameters", {})
    if not names:
        message = "ParameterRanges is empty: at least one hyperparameter range is required to tune"
        raise invalid(message)
    twice = sorted({name for name in names if names.count(name) > 1 or name in static})
    if twice:
        message = f"A hyperparameter is either a range or static, and these are given twice: {', '.join(twice)}"
        raise invalid(message)
    if len(names) > _MOST_RANGES:
        message = f"A tuning job can search {_MOST_RANGES} hyperparameters, and this one would search {len(names)}"
        raise invalid(message)
    total = len(names) + len({*static, OBJECTIVE_PARAMETER})
    if total > _MOST_PARAMETERS:
        message = (
            f"A training job can have {_MOST_PARAMETERS} hyperparameters, and with {OBJECTIVE_PARAMETER} these would "
            f"have {total}"
        )
        raise invalid(message)
    too_long = [one.name for one in ranges if isinstance(one, Choice) and max(map(len, one.values)) > _LONGEST_VALUE]
    if too_long:
        message = f"Values of hyperparameters have at most {_LONGEST_VALUE} characters: {', '.join(too_long)}"
        raise invalid(message)


def _check_objective(request: Mapping[str, Any]) -> None:
    metric = request["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]["MetricName"]
    defined = request["TrainingJobDefinition"]["AlgorithmSpecification"].get("MetricDefinitions", [])
    if metric not in {one["Name"] for one in defined}:
        message = (
            "A metric is required for this hyperparameter tuning job objective. "
            f"Provide a metric in the metric definitions. None of them is named {metric}"
        )
        raise invalid(message)


def _resources(request: Mapping[str, Any]) -> tuple[int, int]:
    """Return the fewest and the most epochs that Hyperband gives a trial.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_HyperbandStrategyConfig.html
    """
    config = request["HyperParameterTuningJobConfig"]
    hyperband = config.get("StrategyConfig", {}).get("HyperbandStrategyConfig", {})
    if config["Strategy"] != "Hyperband":
        if hyperband:
            message = (
                f"HyperbandStrategyConfig can be provided with the strategy Hyperband only, not {config['Strategy']}"
            )
            raise invalid(message)
        return 1, 1
    static = script_mode.decode(request["TrainingJobDefinition"].get("StaticHyperParameters", {}))
    found = (static[name] for name in _RESOURCE_PARAMETERS if isinstance(static.get(name), int))
    most = hyperband.get("MaxResource") or next(found, None)
    if most is None:
        message = (
            "MaxResource parameter is not provided and could not be inferred from provided static hyperparameters of "
            "TrainingJobDefinition."
        )
        raise invalid(message)
    fewest = hyperband.get("MinResource", 1)
    if not fewest <= most <= _MOST_RESOURCE:
        message = f"MaxResource is {most}: it must be between MinResource, {fewest}, and {_MOST_RESOURCE}"
        raise invalid(message)
    return fewest, most


def _most_trials(config: Mapping[str, Any], ranges: tuple[Range, ...]) -> int:
    limits = config["ResourceLimits"]
    asked, possible = limits.get("MaxNumberOfTrainingJobs"), combinations(ranges)
    if config["Strategy"] == "Grid":
        _check_grid(ranges, asked)
        asked = int(possible)
    elif asked is None and "MaxRuntimeInSeconds" not in limits:
        message = (
            "ResourceLimits must have MaxNumberOfTrainingJobs or MaxRuntimeInSeconds: the tuning job would not end"
        )
        raise invalid(message)
    if asked is not None and possible < asked:
        message = (
            "You don't have enough combinations of hyperparameter ranges. The total number of hyperparameter "
            f"combinations for the provided ranges [{float(possible)}] must be equal or greater than the value of "
            f"MaxNumberOfJobs, [{asked}]. Provide additional ranges."
        )
        raise invalid(message)
    return _within(asked or _MOST_TRIALS, _MOST_TRIALS, f"training jobs per {config['Strategy']} tuning job")


def _most_parallel_trials(limits: Mapping[str, int]) -> int:
    return _within(limits["MaxParallelTrainingJobs"], _MOST_PARALLEL_TRIALS, "parallel training jobs per tuning job")


def _check_grid(ranges: tuple[Range, ...], asked: int | None) -> None:
    others = [one.name for one in ranges if not isinstance(one, Choice)]
    if others:
        message = f"The strategy Grid takes categorical hyperparameters only, and these are none: {', '.join(others)}"
        raise invalid(message)
    possible = int(combinations(ranges))
    if asked not in (None, possible):
        message = (
            f"MaxNumberOfTrainingJobs is {asked}: with the strategy Grid it must equal the number of distinct "
            f"categorical combinations, {possible}, or be left out"
        )
        raise invalid(message)


def _within(asked: int, limit: int, what: str) -> int:
    """Return what is asked for, if an account may have it.

    https://docs.aws.amazon.com/sagemaker/latest/dg/automatic-model-tuning-limits.html
    """
    if asked > limit:
        code = "ResourceLimitExceeded"
        message = (
            f"The account-level service limit 'Number of {what}' is {limit}, and this request asks for {asked}. "
            "Please contact AWS support to request an increase for this limit."
        )
        raise AwsError(code, message)
    return asked

"""The values that cross borders: what a person asks for (Spec) and what came of it (Result).

Everything here is frozen, refuses unknown fields and imports nothing but pydantic, so that a form in the Prefect UI,
the JSON of a schedule, a command line and plain Python all go through the same validation.
"""

import math
from datetime import date
from itertools import product
from typing import Annotated, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import ComputedFieldInfo, FieldInfo

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")

Architecture = Literal[
    "small_cnn",
    "resnet18",
    "resnet50",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "convnext_tiny",
]

# The ways to train, in the order of the journey.
Way = Literal["single instance", "several instances", "EC2"]
WAYS: tuple[Way, ...] = ("single instance", "several instances", "EC2")

S3Uri = Annotated[str, Field(pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?$")]
ExpiryHours = Annotated[float, Field(gt=0, le=87_600)]
# When what serves may be taken away, unless somebody wants it longer.
FORGOTTEN_AFTER_HOURS = 24.0
EndpointName = Annotated[str, Field(pattern=r"^flows-[a-z0-9][a-z0-9-]{0,56}$")]
FrontName = Annotated[str, Field(pattern=r"^flows-[a-zA-Z0-9-_]{1,58}$")]
SageMakerType = Annotated[str, Field(pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9-]+$")]
HostName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9-]+(\.[a-zA-Z0-9-]+)*$")]
Ec2Type = Annotated[str, Field(pattern=r"^[a-z0-9-]+\.[a-z0-9-]+$")]

# --- forms ----------------------------------------------------------------------------------------------------------

_UNITS = {
    "seconds": "seconds",
    "ms": "milliseconds",
    "hours": "hours",
    "days": "days",
    "mb": "MB",
    "gb": "GB",
    "usd": "dollars",
    "percent": "%",
}


def titled(title: str) -> FieldInfo:
    """Return the title of a flow's parameter in a form, for `Annotated`; Prefect would show its name in the code."""
    titled_field: FieldInfo = Field(json_schema_extra={"title": title})
    return titled_field


def _title_of(name: str, _field: FieldInfo | ComputedFieldInfo) -> str:
    """Return a field's title in a form, unless it has one of its own: volume_gb is "Volume (GB)"."""
    *words, last = name.split("_")
    title = f"{' '.join(words)} ({_UNITS[last]})" if words and last in _UNITS else " ".join([*words, last])
    return title[:1].upper() + title[1:]


Result = TypeVar("Result", bound="Value")


class Value(BaseModel):
    """Base of every contract: immutable, closed, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, field_title_generator=_title_of)


# --- datasets -------------------------------------------------------------------------------------------------------


class DatasetSpec(Value):
    """Which labelled pictures to use, and how to split them when they are not split yet."""

    source: str = Field(
        default="digits",
        min_length=1,
        title="Pictures",
        description="'digits', 'dog-breeds', a local folder (train/valid/test or one folder per class), or s3://…",
    )
    seed: int = Field(default=42, ge=0, lt=2**32, description="Seed of the split")
    valid_fraction: float = Field(
        default=0.2, gt=0, lt=1, title="Validation share", description="Share of pictures for validation"
    )
    test_fraction: float = Field(
        default=0.2, gt=0, lt=1, title="Test share", description="Share of pictures for the final test"
    )

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> "DatasetSpec":
        if self.valid_fraction + self.test_fraction >= 1:
            msg = "valid_fraction and test_fraction together must be less than 1, or nothing is left to train on"
            raise ValueError(msg)
        return self


class Channel(Value):
    """One input of a job, as SageMaker reads it: every object under a prefix, or exactly those a manifest names."""

    s3_uri: S3Uri
    data_type: Literal["S3Prefix", "ManifestFile"] = "ManifestFile"


class ImageFile(Value):
    """One picture of a dataset: its S3 key, and the digest of its bytes (the ETag for a foreign prefix)."""

    split: Split
    label: str
    name: str
    key: str
    sha256: str
    size_bytes: int


class Dataset(Value):
    """A dataset as it lies in S3, pinned: the digest covers every file's content, label and split."""

    name: str
    digest: str
    bucket: str
    classes: tuple[str, ...]
    counts: dict[Split, dict[str, int]]
    channels: dict[Split, Channel]
    manifest_s3_uri: S3Uri
    total_bytes: int
    warnings: tuple[str, ...] = ()

    @property
    def total_files(self) -> int:
        """Number of pictures over all splits."""
        return sum(sum(per_class.values()) for per_class in self.counts.values())


class UploadResult(Value):
    """What an upload did: the dataset, and how much of it had to be sent."""

    dataset: Dataset
    files_sent: int
    bytes_sent: int
    seconds: float
    is_new: bool = Field(description="Whether this version was not there before")


class LabelledImage(Value):
    """A picture with its true label, in memory."""

    name: str
    label: str
    body: bytes = Field(
        default=b"", repr=False, exclude=True, description="Its file; not in JSON: it is in the dataset, by its name"
    )


# --- training -------------------------------------------------------------------------------------------------------

# What a training is told and what is searched for it have the same limits.
LearningRate = Annotated[float, Field(gt=0, le=1)]
WeightDecay = Annotated[float, Field(ge=0, le=1)]
Augmentation = Annotated[float, Field(ge=0, le=1)]
BatchSize = Annotated[int, Field(ge=1, le=8192)]
Trainable = Literal["head", "all"]


class Hyperparameters(Value):
    """What the training program is told; the same names, ranges and defaults as its command line."""

    architecture: Architecture = Field(default="small_cnn", description="Network; small_cnn is made for tiny pictures")
    weights: str = Field(
        default="none",
        pattern=r"^(none|imagenet|s3://.+)$",
        description="Starting point: 'none', 'imagenet' (downloaded by the job), or the s3:// URI of a weights file",
    )
    trainable: Trainable = Field(
        default="all", title="Trainable layers", description="Train the last layer only, or everything"
    )
    epochs: int = Field(default=20, ge=1, le=1000, description="Most passes over the training data")
    patience: int = Field(default=5, ge=1, le=1000, description="Stop after so many epochs without better validation")
    batch_size: BatchSize = Field(default=64, description="Pictures per step")
    learning_rate: LearningRate = Field(default=0.003, description="Peak learning rate")
    weight_decay: WeightDecay = Field(default=0.0001, description="Decoupled weight decay")
    image_size: int = Field(
        default=32,
        ge=8,
        le=1024,
        title="Image size (pixels)",
        description="Side of the square the network sees, pixels",
    )
    augmentation: Augmentation = Field(default=0.2, description="Strength of augmentation, 0 is none")
    seed: int = Field(default=42, ge=0, lt=2**32, description="Seed of weights, order and augmentation")

    @model_validator(mode="after")
    def _a_frozen_network_must_know_something(self) -> "Hyperparameters":
        if self.trainable == "head" and self.weights == "none":
            msg = "trainable='head' needs weights to build on: choose weights='imagenet' or trainable='all'"
            raise ValueError(msg)
        if self.architecture == "small_cnn" and self.weights == "imagenet":
            msg = "small_cnn has no ImageNet weights: choose weights='none' or another architecture"
            raise ValueError(msg)
        return self


class Compute(Value):
    """The machines a job runs on, and how long it may have them."""

    instance_type: SageMakerType = Field(
        default="ml.m5.xlarge", description="SageMaker instance type, such as ml.m5.xlarge"
    )
    fallbacks: tuple[SageMakerType, ...] = Field(
        default=(), description="Types to try in turn where there is no capacity"
    )
    instance_count: int = Field(default=1, ge=1, le=100, title="Instances", description="Number of instances")
    volume_gb: int = Field(default=30, ge=1, le=16384, title="Disk (GB)", description="Disk per instance, GB")
    max_runtime_seconds: int = Field(
        default=3600,
        ge=60,
        le=2_419_200,
        title="Longest run (seconds)",
        description="SageMaker stops the job after it",
    )

    @property
    def machines(self) -> str:
        """What it is, as a person reads it."""
        return self.instance_type if self.instance_count == 1 else f"{self.instance_count} × {self.instance_type}"


class SeveralCompute(Compute):
    """The machines of a training on several instances."""

    instance_count: int = Field(default=4, ge=2, le=100, title="Instances", description="Number of instances")


class TrainingSpec(Value):
    """A training job: everything that decides its outcome, and who asks for it."""

    dataset: Dataset
    hyperparameters: Hyperparameters
    compute: Compute
    program_s3_uri: S3Uri = Field(description="The training program, a tar.gz whose name carries its digest")
    image_uri: str
    step: str = Field(
        default="train", pattern=r"^[a-z0-9-]{1,20}$", description="What the job is for; part of its name"
    )
    fresh: bool = Field(default=False, description="Ask for a new job even if one with this content has completed")


class TrainingResult(Value):
    """A completed training job."""

    name: str
    arn: str
    how: Literal["created", "adopted", "reused"]
    model_s3_uri: S3Uri
    output_s3_uri: S3Uri
    instance_type: str
    instance_count: int
    metrics: dict[str, float]
    phase_seconds: dict[str, float] = Field(description="Seconds in each secondary status: Starting, Downloading, …")
    billable_seconds: float
    cost_usd: float | None = Field(
        description="Billable seconds times instances times price; None when the price is unknown"
    )


# --- tuning ---------------------------------------------------------------------------------------------------------


Scale = Literal["linear", "log"]
_WHEN_LOG = "log where the order of magnitude matters"


class FloatRange(Value):
    """Where a number is searched."""

    low: float = Field(title="From", description="Smallest value")
    high: float = Field(title="To", description="Largest value")
    scale: Scale = Field(default="linear", description=_WHEN_LOG)
    steps: int = Field(
        default=4,
        ge=1,
        le=100,
        title="Values of a grid",
        description="Values tried by the Grid strategy; others search between",
    )

    @model_validator(mode="after")
    def _low_is_below_high(self) -> "FloatRange":
        if self.low >= self.high:
            msg = f"low={self.low} must be less than high={self.high}"
            raise ValueError(msg)
        if self.scale == "log" and self.low <= 0:
            msg = f"low={self.low} must be greater than 0 on a log scale"
            raise ValueError(msg)
        return self

    def grid(self) -> tuple[float, ...]:
        """Return `steps` values from low to high, evenly apart on the scale."""
        if self.steps == 1:
            return (self.low,)
        shares = [i / (self.steps - 1) for i in range(self.steps)]
        if self.scale == "log":
            return tuple(self.low * (self.high / self.low) ** share for share in shares)
        return tuple(self.low + (self.high - self.low) * share for share in shares)


class LearningRateRange(FloatRange):
    """Where the learning rate is searched.

    The useful ones of a head on a frozen backbone lie between 0.0005 and 0.01; 0.025 and more never learned.
    """

    low: LearningRate = Field(default=0.0005, title="From", description="Smallest value")
    high: LearningRate = Field(default=0.01, title="To", description="Largest value")
    scale: Scale = Field(default="log", description=_WHEN_LOG)


class WeightDecayRange(FloatRange):
    """Where the weight decay is searched."""

    low: WeightDecay = Field(default=0.00001, title="From", description="Smallest value")
    high: WeightDecay = Field(default=0.1, title="To", description="Largest value")
    scale: Scale = Field(default="log", description=_WHEN_LOG)


class AugmentationRange(FloatRange):
    """Where the strength of augmentation is searched."""

    low: Augmentation = Field(default=0.0, title="From", description="Smallest value")
    high: Augmentation = Field(default=0.5, title="To", description="Largest value")


class SearchSpace(Value):
    """Which hyperparameters are searched, and where; what is left out keeps its value."""

    learning_rate: LearningRateRange | None = Field(
        default=LearningRateRange(), description="Peak learning rate; none: fixed"
    )
    batch_size: tuple[BatchSize, ...] = Field(
        default=(32, 64, 128), title="Batch sizes", description="Batch sizes to choose from; none: fixed"
    )
    weight_decay: WeightDecayRange | None = Field(default=None, description="Decoupled weight decay; none: fixed")
    augmentation: AugmentationRange | None = Field(
        default=None, description="Strength of augmentation, 0 is none; none: fixed"
    )
    trainable: tuple[Trainable, ...] = Field(
        default=(), title="Trainable layers", description="Layers to train, to choose from; none: fixed"
    )

    @model_validator(mode="after")
    def _something_is_searched(self) -> "SearchSpace":
        if not self.ranges and not self.choices:
            msg = "nothing is searched: give learning_rate, batch_size or another range"
            raise ValueError(msg)
        for name, values in self.choices.items():
            if len(set(values)) < len(values):
                msg = f"{name} names a value twice: {', '.join(str(value) for value in values)}"
                raise ValueError(msg)
        return self

    @property
    def ranges(self) -> dict[str, FloatRange]:
        """What is searched between two numbers, by hyperparameter."""
        named = {
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
            "augmentation": self.augmentation,
        }
        return {name: between for name, between in named.items() if between is not None}

    @property
    def choices(self) -> dict[str, tuple[int | str, ...]]:
        """What is chosen from a few values, by hyperparameter."""
        named: dict[str, tuple[int | str, ...]] = {"batch_size": self.batch_size, "trainable": self.trainable}
        return {name: values for name, values in named.items() if values}

    @property
    def names(self) -> tuple[str, ...]:
        """The hyperparameters that are searched."""
        return (*self.ranges, *self.choices)

    @property
    def corners(self) -> tuple[dict[str, float | str], ...]:
        """The outermost combinations: both ends of every range, with every choice."""
        named: dict[str, tuple[float | str, ...]] = {name: (r.low, r.high) for name, r in self.ranges.items()}
        named |= self.choices
        return tuple(dict(zip(named, values, strict=True)) for values in product(*named.values()))

    @property
    def grid_size(self) -> int:
        """How many combinations the Grid strategy tries."""
        return math.prod([*(r.steps for r in self.ranges.values()), *(len(c) for c in self.choices.values())])


class TuningConfig(Value):
    """How hyperparameters are searched, and how much of it."""

    search: SearchSpace = Field(default=SearchSpace(), title="Search space", description="Where to search")
    strategy: Literal["Bayesian", "Random", "Grid", "Hyperband"] = Field(
        default="Bayesian",
        description="How the next trial is chosen; Grid tries every combination, Hyperband stops weak trials early",
    )
    trials: int = Field(default=8, ge=1, le=500, description="Most training jobs; fewer than 8 are mostly luck")
    parallel: int = Field(
        default=2,
        ge=1,
        le=100,
        title="Trials at once",
        description="Training jobs at once; Bayesian learns between them",
    )
    max_usd: float | None = Field(
        default=None, gt=0, title="Budget (dollars)", description="Most dollars; a trial counts as its longest"
    )
    early_stopping: bool = Field(default=False, description="Stop trials that are worse than the median")
    objective: Literal["valid_loss", "valid_accuracy"] = Field(
        default="valid_loss", description="What is best; measured on validation, a mean per picture"
    )
    warm_start_from: str | None = Field(
        default=None, pattern=r"^[a-zA-Z0-9-]{1,32}$", description="An earlier tuning job to learn from, by its name"
    )
    epochs: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        title="Epochs of a trial",
        description="Most epochs of a trial; none: as many as the training's",
    )
    seed: int = Field(default=42, ge=0, lt=2**31, description="Seed of the search")

    @model_validator(mode="after")
    def _options_fit_the_strategy(self) -> "TuningConfig":
        if self.strategy == "Hyperband" and self.early_stopping:
            msg = "Hyperband stops weak trials itself: leave early_stopping out, or choose another strategy"
            raise ValueError(msg)
        if self.strategy == "Grid" and self.search.grid_size > self.trials:
            msg = (
                f"the grid has {self.search.grid_size} combinations, and trials={self.trials} allows fewer: "
                "raise trials, or search less"
            )
            raise ValueError(msg)
        return self


class TuningSpec(Value):
    """A tuning job: what every trial has in common, and how the rest is searched."""

    trial: TrainingSpec
    config: TuningConfig

    @property
    def hyperparameters(self) -> Hyperparameters:
        """What every trial is told, before what is searched."""
        given = self.trial.hyperparameters
        return given if self.config.epochs is None else given.model_copy(update={"epochs": self.config.epochs})


class Trial(Value):
    """One training job of a tuning job."""

    name: str
    status: Literal["InProgress", "Completed", "Failed", "Stopping", "Stopped", "Deleting"]
    hyperparameters: dict[str, str] = Field(description="Those that were searched, as the job got them")
    objective: float | None = Field(description="None while there is none")
    objective_status: Literal["Pending", "Succeeded", "Failed"] = Field(
        default="Pending", description="Whether the tuning job has looked for it, and found it"
    )
    seconds: float = Field(default=0, description="Since it started to run; 0 before")
    ended_after_seconds: float | None = Field(default=None, description="Since the tuning job began; None: it runs")
    cost_usd: float | None = None
    reason: str = Field(default="", description="Why it failed")


class TuningResult(Value):
    """A tuning job that has found something."""

    name: str
    arn: str
    how: Literal["created", "adopted", "reused"]
    strategy: str
    objective: Literal["valid_loss", "valid_accuracy"]
    trials: tuple[Trial, ...]
    best: Trial
    hyperparameters: Hyperparameters = Field(description="With those of the best trial: what a training is given next")
    instance_type: str
    instance_count: int
    seconds: float
    ended_because: str = Field(description="All trials were tried, or why there are fewer")

    @property
    def billable_seconds(self) -> float:
        """Seconds of all trials together, per instance."""
        return sum(trial.seconds for trial in self.trials)

    @property
    def cost_usd(self) -> float | None:
        """Dollars of all trials together; None when the price is unknown."""
        costs = [trial.cost_usd for trial in self.trials]
        return None if None in costs else sum(cost for cost in costs if cost is not None)


# --- training on EC2 ------------------------------------------------------------------------------------------------


class Ec2Compute(Value):
    """A plain EC2 instance that trains, and how long it may live."""

    instance_type: Ec2Type = Field(default="m5.xlarge", description="EC2 instance type, such as m5.xlarge, without ml.")
    fallbacks: tuple[Ec2Type, ...] = Field(default=(), description="Types to try in turn where there is no capacity")
    spot: bool = Field(default=False, description="Ask for spot capacity first, then for on-demand")
    volume_gb: int = Field(
        default=100, ge=50, le=16384, title="Disk (GB)", description="Disk, GB; the Deep Learning AMI alone needs 50"
    )
    max_runtime_seconds: int = Field(
        default=3600, ge=60, le=172_800, title="Longest run (seconds)", description="The command is ended after it"
    )
    image_parameter: str = Field(
        default="/aws/service/deeplearning/ami/x86_64/oss-nvidia-driver-gpu-pytorch-2.10-ubuntu-24.04/latest/ami-id",
        pattern=r"^/[a-zA-Z0-9_./-]+$",
        title="Machine image",
        description="Public SSM parameter that names the machine image: a path that begins with /",
    )


class Ec2TrainingSpec(Value):
    """A training on a plain EC2 instance: everything that decides its outcome."""

    dataset: Dataset
    hyperparameters: Hyperparameters
    compute: Ec2Compute
    program_s3_uri: S3Uri
    image_id: str
    root_device: str = Field(description="Name of the image's root volume, /dev/sda1 or /dev/xvda")
    fresh: bool = False


# --- what a training program reports --------------------------------------------------------------------------------


class Epoch(Value):
    """One pass over the training data, as the training program reports it."""

    model_config = ConfigDict(extra="ignore")

    epoch: int
    train_loss: float
    train_accuracy: float
    valid_loss: float
    valid_accuracy: float
    learning_rate: float
    seconds: float


class Prediction(Value):
    """What the trained model said of one test picture, offline."""

    model_config = ConfigDict(extra="ignore")

    file: str
    label: str
    predicted: str
    probability: float


class TestEvaluation(Value):
    """The one evaluation on test; confusion rows are true classes, columns predicted ones."""

    model_config = ConfigDict(extra="ignore")
    __test__ = False  # pytest takes any class named Test… for tests

    loss: float
    accuracy: float
    confusion: tuple[tuple[int, ...], ...]
    predictions: tuple[Prediction, ...]


class TrainingReport(Value):
    """report.json of the training program, as far as flows look into it; it may grow fields."""

    model_config = ConfigDict(extra="ignore")

    classes: tuple[str, ...]
    epochs: tuple[Epoch, ...]
    best_epoch: int
    stopped_early: bool
    test: TestEvaluation
    seconds: dict[str, float]
    images_per_second: float

    @property
    def best(self) -> Epoch:
        """The epoch whose weights were kept."""
        return self.epochs[self.best_epoch - 1]


# --- endpoints ------------------------------------------------------------------------------------------------------

_LONGEST_ROLLOUT_SECONDS = 25_200  # of SageMaker's 28,800, which include the start of the new servers


class Serverless(Value):
    """Servers that start when they are asked: nothing bills while nobody asks, and a first answer takes longer."""

    memory_mb: Literal[1024, 2048, 3072, 4096, 5120, 6144] = Field(default=2048, description="Memory, MB")
    max_concurrency: int = Field(
        default=5, ge=1, le=200, title="Most at once", description="Most answers at once; more are refused"
    )
    provisioned_concurrency: int | None = Field(
        default=None, ge=1, le=200, title="Kept warm", description="Servers kept warm, and billed; none: cold starts"
    )

    @model_validator(mode="after")
    def _what_is_kept_warm_may_answer(self) -> "Serverless":
        if (self.provisioned_concurrency or 0) > self.max_concurrency:
            msg = (
                f"provisioned_concurrency={self.provisioned_concurrency} must not be more than "
                f"max_concurrency={self.max_concurrency}"
            )
            raise ValueError(msg)
        return self


class EndpointCompute(Value):
    """What serves a model: machines, or on request no machine of one's own."""

    instance_type: SageMakerType = Field(
        default="ml.m5.large", description="SageMaker instance type, such as ml.m5.large"
    )
    instance_count: int = Field(default=1, ge=1, le=100, title="Instances", description="Number of instances")
    serverless: Serverless | None = Field(default=None, description="Serverless in place of instances")

    @property
    def machines(self) -> str:
        """What it is, as a person reads it."""
        if self.serverless:
            return f"serverless with {self.serverless.memory_mb} MB"
        return f"{self.instance_count} × {self.instance_type}"


class Rollout(Value):
    """How the requests of an endpoint in service move to another model, and what takes them back.

    The new model's servers are started beside the old ones, which go when everything has moved and nothing went off.
    """

    shift: Literal["all at once", "canary", "linear"] = Field(
        default="canary", description="Everything at once, a first part and then the rest, or in equal parts"
    )
    step_percent: int = Field(
        default=10, ge=10, le=50, title="Part (%)", description="Share of the requests in the first, or each, part"
    )
    bake_seconds: int = Field(
        default=300, ge=0, le=3600, title="Watched for (seconds)", description="How long each part is watched"
    )
    most_error_percent: float = Field(
        default=5,
        gt=0,
        lt=100,
        title="Most errors (%)",
        description="More failed answers (5xx) of the new model than this take it back",
    )
    most_latency_ms: float | None = Field(
        default=None, gt=0, description="Slower answers (p99) of the new model than this take it back; none: any"
    )

    @property
    def steps(self) -> int:
        """How many parts the requests move in."""
        return {"all at once": 1, "canary": 2, "linear": math.ceil(100 / self.step_percent)}[self.shift]

    @model_validator(mode="after")
    def _it_is_over_in_a_working_day(self) -> "Rollout":
        if self.steps * self.bake_seconds > _LONGEST_ROLLOUT_SECONDS:
            msg = (
                f"{self.steps} parts of bake_seconds={self.bake_seconds} take longer than the "
                f"{_LONGEST_ROLLOUT_SECONDS} s that SageMaker gives an update: fewer parts, or less time for each"
            )
            raise ValueError(msg)
        return self


class EndpointSpec(Value):
    """An endpoint: the model package it serves and the machines that serve it."""

    model_s3_uri: S3Uri
    image_uri: str
    compute: EndpointCompute
    name: EndpointName | None = Field(
        default=None, description="Of an endpoint that stays while its models change; none: named by its content"
    )
    rollout: Rollout = Field(default=Rollout(), description="How a named endpoint that is in service is updated")
    fresh: bool = Field(default=False, description="Ask for a new endpoint even if one with this content is in service")


class EndpointResult(Value):
    """An endpoint in service."""

    name: str
    arn: str
    how: Literal["created", "adopted", "reused", "updated"]
    ours: bool = Field(description="Whether this flow run is who asked for it first")
    config_name: str
    model_name: str
    compute: EndpointCompute
    created_at: AwareDatetime
    seconds_to_in_service: float
    hourly_usd: float | None = Field(description="None when the price is unknown")


class EndpointAnswer(Value):
    """One answer of an endpoint; probabilities are in 0..1."""

    label: str
    probability: float
    top_k: tuple[dict[str, str | float], ...] = ()
    model_version: str = ""
    milliseconds: float


class SampleAnswer(Value):
    """An endpoint's answer beside the truth."""

    image: LabelledImage
    answer: EndpointAnswer


class Health(Value):
    """How good and how quick an endpoint is."""

    pictures: int = Field(gt=0, description="How many it was asked about")
    accuracy: float = Field(ge=0, le=1)
    p50_ms: float = Field(ge=0, description="Half of the answers took no longer")


class Baseline(Value):
    """What an endpoint was like when it was deployed."""

    health: Health
    manifest_s3_uri: S3Uri = Field(description="Of the dataset whose test pictures it was asked about")


class HealthLimits(Value):
    """How much worse than at its deployment an endpoint may be."""

    most_accuracy_lost: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        title="Most accuracy lost (share)",
        description="Share of the pictures that may be wrong now and were right then",
    )
    most_times_slower: float = Field(
        default=5, gt=1, title="Slower at most (times)", description="Times that answers may take longer, in the median"
    )


class HealthCheck(Value):
    """An endpoint, now and at its deployment."""

    endpoint: str
    now: Health
    then: Health


class PredictedImage(Value):
    """A test picture, and what the trained model said of it offline."""

    image: LabelledImage
    prediction: Prediction


class TrainedModel(Value):
    """A completed training, and what its program reported."""

    way: Way
    job: TrainingResult
    report: TrainingReport


class Deployment(Value):
    """An endpoint in service, and what it said of a few test pictures."""

    endpoint: EndpointResult
    answers: tuple[SampleAnswer, ...] = Field(description="Some of them, to look at")
    health: Health | None = Field(default=None, description="Of all answers; None when it was not asked")
    milliseconds: tuple[float, ...] = Field(default=(), description="How long each of all answers took")


class ComparedTraining(Value):
    """One way of training, as the comparison shows it; seconds are on the wall."""

    way: Way
    machines: str
    job: str
    how: str
    start_up_seconds: float
    download_seconds: float
    training_seconds: float
    upload_seconds: float
    images_per_second: float
    billable_seconds: float
    cost_usd: float | None
    valid_accuracy: float
    test_accuracy: float
    code_path: str = Field(description="What this way does that the others do not")


class Comparison(Value):
    """The same data, hyperparameters and seed, trained in several ways; and the endpoints of the models."""

    trainings: tuple[TrainedModel, ...]
    rows: tuple[ComparedTraining, ...]
    deployments: tuple[Deployment, ...]
    deleted: tuple[str, ...] = Field(description="What was taken down again; nothing when the endpoints were kept")

    @property
    def best(self) -> TrainedModel:
        """The model with the best validation; test only measures it."""
        return max(self.trainings, key=lambda model: model.report.best.valid_accuracy)


# --- the function in front ------------------------------------------------------------------------------------------


_LEAST_FETCHING_SECONDS = 20


class FrontConfig(Value):
    """The Lambda function in front of an endpoint."""

    name: FrontName = Field(
        default="flows-classify-image",
        description="The function's name: flows-, and then letters, digits, dashes and underscores",
    )
    memory_mb: int = Field(default=512, ge=128, le=10_240, description="Memory, MB; processor power comes with it")
    timeout_seconds: int = Field(default=30, ge=5, le=60, description="Longest answer")
    reserved_concurrency: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        title="Reserved for it",
        description="Most answers at once, kept for it alone; none: the account's",
    )
    provisioned_concurrency: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        title="Kept warm",
        description="Environments kept warm, and billed; none: cold starts",
    )
    confidence_threshold: float = Field(
        default=0.5, ge=0, le=1, description="Below it a picture is said to be of no known class"
    )
    takes_s3_keys: bool = Field(
        default=False, title="Takes S3 keys", description="Answer about objects below uploads/ of the bucket"
    )
    url_hosts: tuple[HostName, ...] = Field(
        default=(), title="Hosts of URLs", description="Hosts whose pictures it may fetch, by name; none: no URLs"
    )
    log_retention_days: Literal[1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365] = Field(
        default=30, title="Log kept (days)", description="Days that its log is kept"
    )

    @model_validator(mode="after")
    def _what_is_kept_warm_is_reserved(self) -> "FrontConfig":
        if self.reserved_concurrency and (self.provisioned_concurrency or 0) > self.reserved_concurrency:
            msg = (
                f"provisioned_concurrency={self.provisioned_concurrency} must not be more than "
                f"reserved_concurrency={self.reserved_concurrency}"
            )
            raise ValueError(msg)
        if self.fetches and self.timeout_seconds < _LEAST_FETCHING_SECONDS:
            msg = f"timeout_seconds={self.timeout_seconds} must be {_LEAST_FETCHING_SECONDS} or more to fetch pictures"
            raise ValueError(msg)
        return self

    @property
    def fetches(self) -> bool:
        """Whether it fetches pictures itself."""
        return self.takes_s3_keys or bool(self.url_hosts)


class FrontSpec(Value):
    """A function in front: the endpoint it asks, and how."""

    endpoint_name: str
    config: FrontConfig


class FrontResult(Value):
    """A function in front, in service behind its alias."""

    name: str
    arn: str = Field(description="Of the alias: what callers call")
    version: str
    previous_version: str | None = Field(description="What the alias pointed to before; None when it is new")
    how: Literal["created", "updated", "unchanged"]
    url: str = Field(description="Function URL; signed requests only")
    answers: tuple[SampleAnswer, ...] = Field(description="What it said of a few pictures, through the alias")


# --- scaling --------------------------------------------------------------------------------------------------------


class ScheduledCapacity(Value):
    """Other limits from a moment on, which may come again: more instances before the office opens."""

    name: str = Field(pattern=r"^[a-zA-Z0-9-]{1,64}$", description="Its name: letters, digits and dashes")
    schedule: str = Field(
        pattern=r"^(cron|at|rate)\(.+\)$",
        title="When",
        description="When: cron(0 7 ? * MON-FRI *), at(2027-01-01T00:00:00)",
    )
    timezone: str = Field(
        default="UTC",
        pattern=r"^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$",
        title="Time zone",
        description="The schedule's time zone, such as Europe/Zurich",
    )
    min_instances: int = Field(ge=1, le=100, title="Fewest instances", description="Fewest instances from then on")
    max_instances: int = Field(ge=1, le=100, title="Most instances", description="Most instances from then on")

    @model_validator(mode="after")
    def _fewest_is_not_more_than_most(self) -> "ScheduledCapacity":
        _check_limits(self.min_instances, self.max_instances)
        return self


class Scaling(Value):
    """How many instances an endpoint has: as many as keep each at its target, within limits."""

    target: float = Field(
        gt=0,
        title="Target (invocations per instance and minute)",
        description="Invocations per instance and minute to hold; recommend_scaling measures what is right",
    )
    min_instances: int = Field(default=1, ge=1, le=100, title="Fewest instances", description="Fewest instances")
    max_instances: int = Field(
        default=4, ge=1, le=100, title="Most instances", description="Most instances, and so the most it can cost"
    )
    scale_out_cooldown_seconds: int = Field(
        default=60, ge=0, le=3600, title="Rest after adding (seconds)", description="Rest after instances were added"
    )
    scale_in_cooldown_seconds: int = Field(
        default=300,
        ge=0,
        le=3600,
        title="Rest after removing (seconds)",
        description="Rest after instances were removed",
    )
    schedule: tuple[ScheduledCapacity, ...] = Field(default=(), description="Other limits from given moments on")

    @model_validator(mode="after")
    def _limits_and_names_make_sense(self) -> "Scaling":
        _check_limits(self.min_instances, self.max_instances)
        names = [one.name for one in self.schedule]
        if len(set(names)) < len(names):
            msg = f"the schedule names something twice: {', '.join(names)}"
            raise ValueError(msg)
        return self


def _check_limits(fewest: int, most: int) -> None:
    if fewest > most:
        msg = f"min_instances={fewest} must not be more than max_instances={most}"
        raise ValueError(msg)


class ScalingActivity(Value):
    """One time that instances were added or removed."""

    at: AwareDatetime
    description: str
    cause: str
    status: str
    instances: int | None = Field(default=None, description="How many it was to have then")


class MinuteLoad(Value):
    """What an endpoint was asked in a minute, as CloudWatch counted it."""

    at: AwareDatetime
    invocations_per_instance: float


class ScalingResult(Value):
    """An endpoint that is scaled."""

    endpoint: str
    how: Literal["registered", "changed"]
    scaling: Scaling
    instances: int = Field(description="How many it has now")
    alarms: tuple[str, ...] = Field(description="What CloudWatch watches for the policy")
    activities: tuple[ScalingActivity, ...] = Field(description="What was done so far, the latest first")
    load: tuple[MinuteLoad, ...] = Field(description="What was asked in the last hours, minute by minute")
    most_hourly_usd: float | None = Field(description="With the most instances; None when the price is unknown")


class Traffic(Value):
    """What is expected of an endpoint, and what it is measured by."""

    requests_per_second: float = Field(gt=0, description="On an ordinary day")
    peak_requests_per_second: float = Field(gt=0, description="At the busiest")
    p99_ms: float = Field(
        default=1000,
        gt=0,
        title="Longest answer, p99 (milliseconds)",
        description="99 of 100 answers may take so long, milliseconds",
    )
    safety_factor: float = Field(
        default=0.5, gt=0, le=1, description="Share of what an instance holds that scaling aims at; AWS advises 0.5"
    )
    seconds_per_level: float = Field(
        default=5,
        ge=1,
        le=600,
        title="Measured for (seconds)",
        description="How long each number of callers is measured",
    )
    most_callers: int = Field(default=32, ge=1, le=1000, description="Most callers at once")

    @model_validator(mode="after")
    def _the_peak_is_the_peak(self) -> "Traffic":
        if self.peak_requests_per_second < self.requests_per_second:
            msg = (
                f"peak_requests_per_second={self.peak_requests_per_second:g} must not be less than "
                f"requests_per_second={self.requests_per_second:g}"
            )
            raise ValueError(msg)
        return self


class LoadLevel(Value):
    """What was measured with so many callers, each of whom asks again as soon as it is answered."""

    callers: int
    requests: int
    errors: int
    requests_per_second: float
    mean_ms: float
    p50_ms: float
    p99_ms: float


class ScalingRecommendation(Value):
    """What follows from a measurement and the expected traffic, and why."""

    endpoint: str
    instance_type: str
    levels: tuple[LoadLevel, ...]
    held_requests_per_second: float = Field(description="The most that one instance held at the asked p99")
    scaling: Scaling
    reserved_concurrency: int = Field(description="Of the function in front")
    provisioned_concurrency: int = Field(description="Of the function in front")
    monthly_usd: float | None = Field(description="On ordinary days; None when a price is unknown")
    most_monthly_usd: float | None = Field(description="If every moment were the busiest")
    reasoning: tuple[str, ...] = Field(description="One sentence for each number")


# --- comparison and teardown ----------------------------------------------------------------------------------------


class TeardownResult(Value):
    """What was deleted or stopped, and what stays."""

    deleted: tuple[str, ...]
    kept: tuple[str, ...]


# --- prices ---------------------------------------------------------------------------------------------------------

Usd = Annotated[float, Field(gt=0)]
PriceKind = Literal["training", "hosting", "ec2", "lambda"]
PRICE_KINDS: tuple[PriceKind, ...] = ("training", "hosting", "ec2", "lambda")
MostTimes = Annotated[float, Field(gt=1, le=1000)]


class PriceList(Value):
    """The on-demand prices of a region, in dollars: of machines an hour, of functions by what they are charged for."""

    as_of: date = Field(title="As of", description="When they were listed")
    source: str = Field(title="Source", description="Who listed them")
    training: dict[str, Usd] = Field(title="Training", description="SageMaker instances of jobs, by type")
    hosting: dict[str, Usd] = Field(title="Hosting", description="SageMaker instances of endpoints, by type")
    ec2: dict[str, Usd] = Field(title="EC2", description="EC2 instances, by type")
    functions: dict[str, Usd] = Field(alias="lambda", title="Lambda", description="What a function is charged for")

    @property
    def by_kind(self) -> dict[PriceKind, dict[str, Usd]]:
        """The prices by what they are for."""
        return {"training": self.training, "hosting": self.hosting, "ec2": self.ec2, "lambda": self.functions}

    @property
    def count(self) -> int:
        """How many prices there are."""
        return sum(len(prices) for prices in self.by_kind.values())


class PriceChange(Value):
    """A price that is not any more what it was."""

    kind: PriceKind = Field(title="For", description="What it is the price of")
    name: str = Field(title="Name", description="The instance type, or what of a function is charged for")
    old_usd: Usd = Field(title="Before", description="Dollars, as they were reckoned with")
    new_usd: Usd = Field(title="Now", description="Dollars, as AWS lists them now")

    @property
    def percent(self) -> float:
        """How much dearer it has become; cheaper when negative."""
        return 100 * (self.new_usd / self.old_usd - 1)

    @property
    def times(self) -> float:
        """How many times dearer, or cheaper, it has become."""
        return max(self.new_usd / self.old_usd, self.old_usd / self.new_usd)


class PriceRefresh(Value):
    """What AWS lists now, held against what was reckoned with."""

    region: str = Field(title="Region", description="The region whose prices they are")
    as_of: date = Field(title="As of", description="When AWS was asked")
    before: date | None = Field(title="Before", description="Of when the prices before were; None: there were none")
    listed: int = Field(title="Listed", description="How many prices AWS lists")
    changes: tuple[PriceChange, ...] = Field(title="Changes", description="The prices that are others now")
    added: int = Field(title="Added", description="How many are known now that were not")
    gone: tuple[str, ...] = Field(title="Gone", description="What is not listed any more, and has no price from now on")
    s3_uri: str = Field(default="", title="Kept at", description="Where they are kept")


# --- what bills -----------------------------------------------------------------------------------------------------

BillingKind = Literal[
    "training job", "tuning job", "endpoint", "instance", "provisioned concurrency", "scalable target"
]


class Billing(Value):
    """Something of this project that bills, or makes something bill; with what its tags say."""

    kind: BillingKind
    name: str = Field(description="Of an instance its id; of provisioned concurrency FUNCTION:ALIAS")
    flow_run_ids: tuple[str, ...] = Field(description="Who asked for it, and who has adopted it")
    expires_at: AwareDatetime | None = Field(description="When it may be taken away; None: never")
    hourly_usd: float | None = Field(description="None when the price is unknown")
    ends_at: AwareDatetime | None = Field(
        default=None, description="When it would end by itself at the latest; None: never"
    )
    reason: str = Field(default="", description="Why it is of no use, where that shows by itself")


class Orphan(Value):
    """Something that bills though nobody waits for it any more."""

    billing: Billing
    reason: str
    saved_usd: float | None = Field(description="Until it would have ended by itself, or a day; None: unknown price")
    reaped: bool = False
    trouble: str = Field(default="", description="Why it could not be ended")


class ReapResult(Value):
    """What was found that nobody waits for, and ended."""

    orphans: tuple[Orphan, ...]
    dry_run: bool

    @property
    def saved_usd(self) -> float:
        """What ending it saves, as far as prices are known."""
        return sum(one.saved_usd or 0.0 for one in self.orphans if one.reaped)


# --- approval -------------------------------------------------------------------------------------------------------


class Gate(Value):
    """What a model must be, and cost, to go into service; and who decides about one that is not."""

    least_accuracy: float = Field(
        default=0.0, ge=0, le=1, title="Least test accuracy", description="Share of the test pictures; 0: any"
    )
    most_hourly_usd: float | None = Field(
        default=None,
        gt=0,
        title="Dearest endpoint (dollars an hour)",
        description="What the endpoint may cost with the instances that it starts with; none: anything",
    )
    when_missed: Literal["refuse", "ask"] = Field(
        default="refuse",
        title="When one of them is missed",
        description="Leave the model out of service, or pause the run until a person has decided in the Prefect UI",
    )
    answer_within_seconds: int = Field(
        default=3600, ge=10, le=604_800, description="How long a person is waited for; no answer is a no"
    )


class Approval(Value):
    """Whether a model may go into service, who has decided it, and why it was a question."""

    granted: bool
    decided_by: Literal["thresholds", "a person", "nobody in time"]
    missed: tuple[str, ...] = Field(description="What the model missed, one sentence each")
    note: str = Field(default="", description="What the person wrote")


# --- reports --------------------------------------------------------------------------------------------------------


class CostLine(Value):
    """What one step costs: at most, as estimated before, and as billed after; None when a price is unknown."""

    step: str
    machines: str
    billable_seconds: float
    at_most_usd: float | None
    billed_usd: float | None
    note: str = ""


class Section(Value):
    """A part of a report, as markdown."""

    key: str
    title: str
    markdown: str = Field(
        default="", repr=False, exclude=True, description="With its pictures; not in JSON: it is in the artifact"
    )
    artifact_id: UUID | None = Field(default=None, description="The artifact that shows it; None outside of a run")


class StepResult(Value, Generic[Result]):
    """What a step of the journey came to, and the parts of the report that show it."""

    result: Result
    sections: tuple[Section, ...]


class LiveResult(Value):
    """A model that people can ask: its endpoint of a lasting name, the function in front, and how both scale."""

    deployment: Deployment
    front: FrontResult
    recommendation: ScalingRecommendation | None = Field(description="None when no traffic was named")
    scaling: ScalingResult | None = Field(description="None when no traffic was named")
    deleted: tuple[str, ...] = Field(description="What was taken down again; nothing when it was kept")


class RunReport(Value):
    """A whole run, for machines to read; the pictures are in the page beside it."""

    folder: str = Field(description="Where report.json and report.html are")
    title: str
    upload: UploadResult
    tuning: TuningResult | None = Field(description="None when the hyperparameters were given")
    comparison: Comparison
    approval: Approval | None = Field(description="None when no model was to be put into service")
    live: LiveResult | None = Field(description="None when no model was put into service")
    costs: tuple[CostLine, ...]

"""The values that cross borders: what a person asks for (Spec) and what came of it (Result).

Everything here is frozen, refuses unknown fields and imports nothing but pydantic, so that a form in the Prefect UI,
the JSON of a schedule, a command line and plain Python all go through the same validation.
"""

import math
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

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


Result = TypeVar("Result", bound="Value")


class Value(BaseModel):
    """Base of every contract: immutable, closed, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# --- datasets -------------------------------------------------------------------------------------------------------


class DatasetSpec(Value):
    """Which labelled pictures to use, and how to split them when they are not split yet."""

    source: str = Field(
        default="digits",
        min_length=1,
        title="Source",
        description="'digits', 'dog-breeds', a local folder (train/valid/test or one folder per class), or s3://…",
    )
    seed: int = Field(default=42, ge=0, lt=2**32, description="Seed of the split")
    valid_fraction: float = Field(default=0.2, gt=0, lt=1, description="Share of pictures for validation")
    test_fraction: float = Field(default=0.2, gt=0, lt=1, description="Share of pictures for the final test")

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


class LabelledImage(Value):
    """A picture with its true label, in memory."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    name: str
    label: str
    body: bytes = Field(repr=False)


# --- training -------------------------------------------------------------------------------------------------------


class Hyperparameters(Value):
    """What the training program is told; the same names, ranges and defaults as its command line."""

    architecture: Architecture = Field(default="small_cnn", description="Network; small_cnn is made for tiny pictures")
    weights: str = Field(
        default="none",
        pattern=r"^(none|imagenet|s3://.+)$",
        description="Starting point: 'none', 'imagenet' (downloaded by the job), or the s3:// URI of a weights file",
    )
    trainable: Literal["head", "all"] = Field(default="all", description="Train the last layer only, or everything")
    epochs: int = Field(default=20, ge=1, le=1000, description="Most passes over the training data")
    patience: int = Field(default=5, ge=1, le=1000, description="Stop after so many epochs without better validation")
    batch_size: int = Field(default=64, ge=1, le=8192, description="Pictures per step")
    learning_rate: float = Field(default=0.003, gt=0, le=1, description="Peak learning rate")
    weight_decay: float = Field(default=0.0001, ge=0, le=1, description="Decoupled weight decay")
    image_size: int = Field(default=32, ge=8, le=1024, description="Side of the square the network sees, pixels")
    augmentation: float = Field(default=0.2, ge=0, le=1, description="Strength of augmentation, 0 is none")
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

    instance_type: str = Field(default="ml.m5.xlarge", pattern=r"^ml\.", description="SageMaker instance type")
    fallbacks: tuple[str, ...] = Field(default=(), description="Types to try in turn where there is no capacity")
    instance_count: int = Field(default=1, ge=1, le=100, description="Number of instances")
    volume_gb: int = Field(default=30, ge=1, le=16384, description="Disk per instance, GB")
    max_runtime_seconds: int = Field(default=3600, ge=60, le=2_419_200, description="SageMaker stops the job after it")


# What training on several instances takes when nobody says otherwise.
SEVERAL = Compute(instance_count=4)


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


class FloatRange(Value):
    """Where a number is searched."""

    low: float = Field(description="Smallest value")
    high: float = Field(description="Largest value")
    scale: Literal["linear", "log"] = Field(default="linear", description="log where the order of magnitude matters")
    steps: int = Field(default=4, ge=1, le=100, description="Values tried by the Grid strategy; others search between")

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


class SearchSpace(Value):
    """Which hyperparameters are searched, and where; what is left out keeps its value.

    The useful learning rates of a head on a frozen backbone lie between 0.0005 and 0.01; 0.025 and more never learned.
    """

    learning_rate: FloatRange | None = Field(
        default=FloatRange(low=0.0005, high=0.01, scale="log"), description="Peak learning rate"
    )
    batch_size: tuple[int, ...] = Field(default=(32, 64, 128), description="Batch sizes to choose from; none: fixed")
    weight_decay: FloatRange | None = Field(default=None, description="Decoupled weight decay")
    augmentation: FloatRange | None = Field(default=None, description="Strength of augmentation, 0 is none")
    trainable: tuple[Literal["head", "all"], ...] = Field(default=(), description="Layers to train, to choose from")

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
    def grid_size(self) -> int:
        """How many combinations the Grid strategy tries."""
        return math.prod([*(r.steps for r in self.ranges.values()), *(len(c) for c in self.choices.values())])


class TuningConfig(Value):
    """How hyperparameters are searched, and how much of it."""

    search: SearchSpace = Field(default=SearchSpace(), description="Where to search")
    strategy: Literal["Bayesian", "Random", "Grid", "Hyperband"] = Field(
        default="Bayesian",
        description="How the next trial is chosen; Grid tries every combination, Hyperband stops weak trials early",
    )
    trials: int = Field(default=8, ge=1, le=500, description="Most training jobs; fewer than 8 are mostly luck")
    parallel: int = Field(default=2, ge=1, le=100, description="Training jobs at once; Bayesian learns between them")
    max_usd: float | None = Field(default=None, gt=0, description="Most dollars; a trial counts as its longest")
    early_stopping: bool = Field(default=False, description="Stop trials that are worse than the median")
    objective: Literal["valid_loss", "valid_accuracy"] = Field(
        default="valid_loss", description="What is best; measured on validation, a mean per picture"
    )
    warm_start_from: str | None = Field(
        default=None, pattern=r"^[a-zA-Z0-9-]{1,32}$", description="An earlier tuning job to learn from"
    )
    epochs: int | None = Field(default=None, ge=1, le=1000, description="Most epochs of a trial; as the training's")
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
    status: Literal["InProgress", "Completed", "Failed", "Stopping", "Stopped"]
    hyperparameters: dict[str, str] = Field(description="Those that were searched, as the job got them")
    objective: float | None = Field(description="None while there is none")
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

    instance_type: str = Field(default="m5.xlarge", pattern=r"^[a-z0-9-]+\.[a-z0-9-]+$", description="EC2 type")
    fallbacks: tuple[str, ...] = Field(default=(), description="Types to try in turn where there is no capacity")
    spot: bool = Field(default=False, description="Ask for spot capacity first, then for on-demand")
    volume_gb: int = Field(default=100, ge=50, le=16384, description="Disk, GB; the Deep Learning AMI alone needs 50")
    max_runtime_seconds: int = Field(default=3600, ge=60, le=172_800, description="The command is ended after it")
    image_parameter: str = Field(
        default="/aws/service/deeplearning/ami/x86_64/oss-nvidia-driver-gpu-pytorch-2.10-ubuntu-24.04/latest/ami-id",
        pattern=r"^/",
        description="Public SSM parameter that names the machine image",
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


class EndpointCompute(Value):
    """The machines that serve a model."""

    instance_type: str = Field(default="ml.m5.large", pattern=r"^ml\.", description="SageMaker instance type")
    instance_count: int = Field(default=1, ge=1, le=100, description="Number of instances")


class EndpointSpec(Value):
    """An endpoint: the model package it serves and the machines that serve it."""

    model_s3_uri: S3Uri
    image_uri: str
    compute: EndpointCompute
    fresh: bool = Field(default=False, description="Ask for a new endpoint even if one with this content is in service")


class EndpointResult(Value):
    """An endpoint in service."""

    name: str
    arn: str
    how: Literal["created", "adopted", "reused"]
    config_name: str
    model_name: str
    instance_type: str
    instance_count: int
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


class TrainedModel(Value):
    """A completed training, and what its program reported."""

    way: Way
    job: TrainingResult
    report: TrainingReport


class Deployment(Value):
    """An endpoint in service, and what it said of a few test pictures."""

    endpoint: EndpointResult
    answers: tuple[SampleAnswer, ...]


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

    name: str = Field(
        default="flows-classify-image", pattern=r"^flows-[a-zA-Z0-9-_]{1,58}$", description="The function's name"
    )
    memory_mb: int = Field(default=512, ge=128, le=10_240, description="Memory, MB; processor power comes with it")
    timeout_seconds: int = Field(default=30, ge=5, le=60, description="Longest answer")
    reserved_concurrency: int | None = Field(
        default=None, ge=1, le=10_000, description="Most answers at once, kept for it alone; none: the account's"
    )
    provisioned_concurrency: int | None = Field(
        default=None, ge=1, le=10_000, description="Environments kept warm, and billed; none: cold starts"
    )
    confidence_threshold: float = Field(
        default=0.5, ge=0, le=1, description="Below it a picture is said to be of no known class"
    )
    takes_s3_keys: bool = Field(default=False, description="Answer about objects below uploads/ of the bucket")
    url_hosts: tuple[str, ...] = Field(default=(), description="Hosts whose pictures it may fetch; none: no URLs")
    log_retention_days: Literal[1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365] = Field(
        default=30, description="Days that its log is kept"
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


# --- comparison and teardown ----------------------------------------------------------------------------------------


class TeardownResult(Value):
    """What was deleted or stopped, and what stays."""

    deleted: tuple[str, ...]
    kept: tuple[str, ...]


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
    markdown: str = Field(repr=False)


class StepResult(Value, Generic[Result]):
    """What a step of the journey came to, and the parts of the report that show it."""

    result: Result
    sections: tuple[Section, ...]


class RunReport(Value):
    """A whole run, for machines to read; the pictures are in the page beside it."""

    folder: str = Field(description="Where report.json and report.html are")
    title: str
    upload: UploadResult
    tuning: TuningResult | None = Field(description="None when the hyperparameters were given")
    comparison: Comparison
    costs: tuple[CostLine, ...]

"""The values that cross borders: what a person asks for (Spec) and what came of it (Result).

Everything here is frozen, refuses unknown fields and imports nothing but pydantic, so that a form in the Prefect UI,
the JSON of a schedule, a command line and plain Python all go through the same validation.
"""

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
    instance_count: int = Field(default=1, ge=1, le=100, description="Number of instances")
    volume_gb: int = Field(default=30, ge=1, le=16384, description="Disk per instance, GB")
    max_runtime_seconds: int = Field(default=3600, ge=60, le=2_419_200, description="SageMaker stops the job after it")


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

    job: TrainingResult
    report: TrainingReport


class Deployment(Value):
    """An endpoint in service, and what it said of a few test pictures."""

    endpoint: EndpointResult
    answers: tuple[SampleAnswer, ...]


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
    """What a step of the journey came to, and the part of the report that shows it."""

    result: Result
    section: Section


class RunReport(Value):
    """A whole run, for machines to read; the pictures are in the page beside it."""

    folder: str = Field(description="Where report.json and report.html are")
    title: str
    upload: UploadResult
    training: TrainedModel
    deployment: Deployment
    costs: tuple[CostLine, ...]
    teardown: TeardownResult | None = Field(description="None when the endpoint was to be kept")

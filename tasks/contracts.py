"""The values that cross borders: what a person asks for (Spec) and what came of it (Result).

Everything here is frozen, refuses unknown fields and imports nothing but pydantic, so that a form in the Prefect UI,
the JSON of a schedule, a command line and plain Python all go through the same validation.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

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
        description="'digits', 'dog-breeds', a local folder (train/valid/test, or one folder per class), or an s3:// prefix",
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
    """One picture of a dataset; `key` is its S3 key, `sha256` the digest of its bytes (an ETag for foreign prefixes)."""

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

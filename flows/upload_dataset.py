"""Upload a dataset to S3: look at it, send what is not there yet, pin it in a manifest.

python -m flows.upload_dataset --dataset.source digits
python -m flows.upload_dataset --dataset.source ~/pictures --dataset.test-fraction 0.1
"""

from typing import Annotated

from prefect import flow

from flows import command_line
from tasks import datasets, uploads
from tasks.aws.settings import load_settings
from tasks.cancellation import stop_what_it_started
from tasks.contracts import DatasetSpec, StepResult, UploadResult, titled
from tasks.events import tell_uploaded
from tasks.reports import report_dataset
from tasks.results import kept_as_json
from tasks.runs import run_logger

_PICTURES_SHOWN = 10


@kept_as_json
@flow(
    name="upload-dataset",
    flow_run_name="upload {dataset.source}",
    on_cancellation=[stop_what_it_started],
)
def upload_dataset(*, dataset: Annotated[DatasetSpec, titled("Dataset")] = DatasetSpec()) -> StepResult[UploadResult]:
    """Upload a dataset of labelled pictures to S3; what is there already is not sent again.

    Args:
        dataset: Which pictures, and how to split them.
    """
    settings = load_settings()
    uploads.check_bucket(settings.bucket)
    if datasets.lies_in_s3(dataset):
        upload = uploads.register_prefix(dataset, settings.bucket)
    else:
        upload = uploads.upload_dataset(datasets.inspect_dataset(dataset), settings.bucket)
    for warning in upload.dataset.warnings:
        run_logger().warning("%s", warning)
    samples = datasets.fetch_images(upload.dataset, "train", _PICTURES_SHOWN)
    tell_uploaded(upload, dataset)
    section = report_dataset(upload, samples, settings.region)
    return StepResult(result=upload, sections=(section,))


if __name__ == "__main__":
    command_line.run(upload_dataset, lambda step: step.result.dataset.manifest_s3_uri)

"""Upload a dataset to S3: look at it, send what is not there yet, pin it in a manifest.

python -m flows.upload_dataset --dataset.source digits
python -m flows.upload_dataset --dataset.source ~/pictures --dataset.test-fraction 0.1
"""

from prefect import flow

from flows import command_line
from tasks import datasets, uploads
from tasks.aws.settings import load_settings
from tasks.contracts import DatasetSpec, StepResult, UploadResult
from tasks.reports import report_dataset
from tasks.runs import run_logger

_PICTURES_SHOWN = 10


@flow(name="upload-dataset", flow_run_name="upload {dataset.source}")
def upload_dataset(*, dataset: DatasetSpec = DatasetSpec()) -> StepResult[UploadResult]:
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
    section = report_dataset(upload, datasets.fetch_images(upload.dataset, "train", _PICTURES_SHOWN))
    return StepResult(result=upload, sections=(section,))


if __name__ == "__main__":
    command_line.run(upload_dataset, lambda step: step.result.dataset.manifest_s3_uri)

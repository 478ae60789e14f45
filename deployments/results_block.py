"""Register where flows keep their results in S3: a block over results/ of the foundation's bucket, with no key in it.

python -m deployments.results_block                prints what makes flows keep their results there
python -m deployments.results_block --name NAME    another name of the block

PREFECT_API_URL names the server that gets the block; the AWS variables name the account of the foundation. Whoever runs
a flow, or reads a result, does so with the AWS credentials of their own environment.
"""

import argparse
import sys

_NAME = "sagemaker-flows"
_FOLDER = "results"


def main(arguments: list[str]) -> int:
    """Register the block; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deployments.results_block", description=__doc__.split("\n")[0])
    parser.add_argument("--name", default=_NAME, help=f"the block's name, {_NAME} by default")
    name = parser.parse_args(arguments).name
    # Prefect takes two seconds to import, and --help needs none of it.
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415
    from httpx import TransportError  # noqa: PLC0415
    from prefect.settings import get_current_settings  # noqa: PLC0415

    from tasks.aws.errors import FlowsError, sentence_for  # noqa: PLC0415

    try:
        slug = _register(name)
    except (FlowsError, ClientError, BotoCoreError) as error:
        sys.stderr.write(f"{sentence_for(error)}\n")
        return 1
    except (TransportError, ValueError) as error:
        url = get_current_settings().api.url
        sys.stderr.write(f"The block {name} could not be saved on the Prefect server at {url}: {error}\n")
        return 1
    sys.stdout.write("export PREFECT_RESULTS_PERSIST_BY_DEFAULT=true\n")
    sys.stdout.write(f"export PREFECT_DEFAULT_RESULT_STORAGE_BLOCK={slug}\n")
    return 0


def _register(name: str) -> str:
    from prefect_aws import AwsCredentials, S3Bucket  # noqa: PLC0415 - imports Prefect

    from tasks.aws.settings import load_settings  # noqa: PLC0415

    settings = load_settings()
    # Nothing but the region: boto3 finds the credentials, and the address of a local AWS, where it always does.
    credentials = AwsCredentials(region_name=settings.region)
    S3Bucket(bucket_name=settings.bucket, bucket_folder=_FOLDER, credentials=credentials).save(name, overwrite=True)
    return f"s3-bucket/{name}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Where people look at resources: the addresses of their pages, in AWS's console or in another one.

AWS documents no such addresses; these are what its console shows in the address bar.
"""

from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

Page = Literal[
    "training job", "training log", "tuning job", "endpoint", "endpoint log", "instance", "function", "function log"
]

_LOGS = "cloudwatch/home?region={region}#logsV2:log-groups/log-group/$252Faws$252F"
_AWS: dict[Page, str] = {
    "training job": "sagemaker/home?region={region}#/jobs/{name}",
    "training log": _LOGS + "sagemaker$252FTrainingJobs$3FlogStreamNameFilter$3D{name}$252F",
    "tuning job": "sagemaker/home?region={region}#/hyper-tuning-jobs/{name}",
    "endpoint": "sagemaker/home?region={region}#/endpoints/{name}",
    "endpoint log": _LOGS + "sagemaker$252FEndpoints$252F{name}",
    "instance": "ec2/home?region={region}#InstanceDetails:instanceId={name}",
    "function": "lambda/home?region={region}#/functions/{name}",
    "function log": _LOGS + "lambda$252F{name}",
}
_AWS_OBJECT = "s3/object/{bucket}?region={region}&prefix={key}"
# A console that has a page for each resource, with its log on it, at a path that can be read.
_PLAIN: dict[Page, str] = {
    "training job": "training-jobs/{name}",
    "training log": "training-jobs/{name}",
    "tuning job": "tuning-jobs/{name}",
    "endpoint": "endpoints/{name}",
    "endpoint log": "endpoints/{name}",
    "instance": "instances/{name}",
    "function": "functions/{name}",
    "function log": "functions/{name}",
}
_PLAIN_OBJECT = "buckets/{bucket}/object?key={key}"
# By what the names of a partition's regions begin with.
_DOMAINS = {"cn-": "console.amazonaws.cn", "us-gov-": "console.amazonaws-us-gov.com", "": "console.aws.amazon.com"}
_OF_ARN: dict[str, Page] = {
    "training-job": "training job",
    "hyper-parameter-tuning-job": "tuning job",
    "endpoint": "endpoint",
    "instance": "instance",
}


@dataclass(frozen=True)
class Console:
    """A console, as far as one finds the way to its pages.

    Args:
        region: Where the resources are.
        address: Of a console with plain paths; AWS's own when there is none.
    """

    region: str
    address: str = ""

    def page(self, page: Page, name: str) -> str:
        """Return the address of a resource's page; of an instance the name is its id."""
        return self._address((_PLAIN if self.address else _AWS)[page], name=quote(name, safe=""))

    def object(self, s3_uri: str) -> str:
        """Return the address of the page of an object in S3."""
        bucket, _, key = s3_uri.removeprefix("s3://").partition("/")
        return self._address(_PLAIN_OBJECT if self.address else _AWS_OBJECT, bucket=bucket, key=quote(key))

    def _address(self, path: str, **parts: str) -> str:
        domains = [domain for start, domain in _DOMAINS.items() if self.region.startswith(start)]
        root = self.address.rstrip("/") or f"https://{self.region}.{domains[0]}"
        return f"{root}/{path.format(region=self.region, **parts)}"


def region_of(arn: str) -> str:
    """Return the region that an ARN names."""
    return arn.split(":")[3]


def page_of(arn: str) -> tuple[Page, str]:
    """Return which page a resource of SageMaker or EC2 has, and the name that it has there."""
    kind, _, name = arn.split(":", 5)[5].partition("/")
    return _OF_ARN[kind], name

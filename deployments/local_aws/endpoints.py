"""SageMaker's endpoints: created, updated blue/green, invoked, deleted."""

import http.client
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from deployments.local_aws.account import Account
from deployments.local_aws.fleets import LOG_GROUP, Fleet
from deployments.local_aws.model_server import StartError
from deployments.local_aws.models import EndpointConfigs, Models
from deployments.local_aws.protocol import AwsError, Operation
from deployments.local_aws.records import Record, Records, invalid, listing
from deployments.local_aws.unsupported import refuse_unsupported

_INVOKE_SECONDS = 60.0  # the service's limit for one answer
_FIRST_ERROR = 400
_FIRST_SERVER_ERROR = 500
_REASON_LIMIT = 1024
_SUMMARY = ("EndpointName", "EndpointArn", "CreationTime", "LastModifiedTime", "EndpointStatus")


class Endpoints:
    """The endpoints of an account; each changes in a thread of its own.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateEndpoint.html
    """

    def __init__(self, account: Account, models: Models, configs: EndpointConfigs) -> None:
        self._account, self._models, self._configs = account, models, configs
        self._records = Records()
        self._fleets: dict[str, Fleet] = {}
        self._threads: list[threading.Thread] = []

    def operations(self) -> dict[str, Operation]:
        """Return its operations by their API names."""
        return {
            "CreateEndpoint": self.create,
            "DescribeEndpoint": self.describe,
            "ListEndpoints": self.list,
            "UpdateEndpoint": self.update,
            "DeleteEndpoint": self.delete,
        }

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        """Accept an endpoint and begin to start its servers."""
        refuse_unsupported("CreateEndpoint", request)
        name, config_name = request["EndpointName"], request["EndpointConfigName"]
        arn, now = self._arn(name), datetime.now(UTC)
        fleet = self._fleet(name, config_name)
        record: Record = {
            "EndpointName": name,
            "EndpointArn": arn,
            "EndpointConfigName": config_name,
            "EndpointStatus": "Creating",
            "CreationTime": now,
            "LastModifiedTime": now,
        }
        self._records.add(name, record, invalid(f'Cannot create already existing endpoint "{arn}".'))
        self._in_background(lambda: self._bring_up(record, fleet), f"create-{name}")
        return {"EndpointArn": arn}

    def describe(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return what there is to know of an endpoint."""
        with self._records.lock:
            return dict(self._get(request["EndpointName"]))

    def list(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return a page of endpoints."""
        return listing(
            self._records,
            request,
            key="Endpoints",
            prefix="Endpoint",
            members=_SUMMARY,
            status="EndpointStatus",
        )

    def update(self, request: dict[str, Any]) -> dict[str, Any]:
        """Begin to replace the servers by those of another configuration; the old ones answer until the new ones do."""
        refuse_unsupported("UpdateEndpoint", request)
        name = request["EndpointName"]
        with self._records.lock:
            record = self._get(name)
            if record["EndpointStatus"] != "InService":
                message = f'Cannot update in-progress endpoint "{record["EndpointArn"]}".'
                raise invalid(message)
            fleet = self._fleet(name, request["EndpointConfigName"])
            self._change(record, "Updating")
        self._in_background(lambda: self._replace(record, fleet), f"update-{name}")
        return {"EndpointArn": record["EndpointArn"]}

    def delete(self, request: dict[str, Any]) -> dict[str, Any]:
        """Begin to delete an endpoint."""
        name = request["EndpointName"]
        with self._records.lock:
            record = self._get(name)
            if record["EndpointStatus"] in ("Creating", "Updating", "Deleting"):
                message = f'Cannot update in-progress endpoint "{record["EndpointArn"]}".'
                raise invalid(message)
            self._change(record, "Deleting")
        self._in_background(lambda: self._take_down(name), f"delete-{name}")
        return {}

    def invoke(self, request: dict[str, Any]) -> dict[str, Any]:
        """Have a server of the endpoint answer.

        https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html
        """
        name = request["EndpointName"]
        fleet = self._serving_fleet(name)
        instance = fleet.choose(request.get("TargetVariant"))
        try:
            status, content_type, body = instance.server.invoke(request["Body"], _headers(request), _INVOKE_SECONDS)
        except TimeoutError:
            status, content_type, body = 504, "text/plain", b"Your invocation timed out while waiting for a response"
        except (OSError, http.client.HTTPException) as error:
            status, content_type, body = 503, "text/plain", f"The container did not answer: {error}".encode()
        if status >= _FIRST_ERROR:
            raise self._model_error(name, instance.variant, status, body.decode("utf-8", "replace"))
        return {"Body": body, "ContentType": content_type, "InvokedProductionVariant": instance.variant}

    def stop(self) -> None:
        """End every server."""
        for thread in self._threads:
            thread.join()
        for fleet in self._fleets.values():
            fleet.stop()

    # --- what happens in the background --------------------------------------------------------------------------

    def _bring_up(self, record: Record, fleet: Fleet) -> None:
        try:
            fleet.start()
        except StartError as error:
            with self._records.lock:
                record["FailureReason"] = str(error)[:_REASON_LIMIT]
                self._change(record, "Failed")
            return
        self._switch(record, fleet)

    def _replace(self, record: Record, fleet: Fleet) -> None:
        name = record["EndpointName"]
        old = self._fleets[name]
        try:
            fleet.start()
        except StartError as error:
            # Rolled back: in service with the old configuration, and only the reason tells.
            with self._records.lock:
                record["FailureReason"] = str(error)[:_REASON_LIMIT]
                self._change(record, "InService")
            return
        self._switch(record, fleet)
        old.stop()

    def _switch(self, record: Record, fleet: Fleet) -> None:
        with self._records.lock:
            self._fleets[record["EndpointName"]] = fleet
            record.pop("FailureReason", None)
            record["EndpointConfigName"] = fleet.config_name
            record["ProductionVariants"] = [_described(variant) for variant in fleet.variants]
            self._change(record, "InService")

    def _take_down(self, name: str) -> None:
        fleet = self._fleets.pop(name, None)
        if fleet:
            fleet.stop()
        self._records.remove(name, self._missing(name))

    def _in_background(self, work: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=work, daemon=True, name=name)
        self._threads = [*(running for running in self._threads if running.is_alive()), thread]
        thread.start()

    # --- what it knows -------------------------------------------------------------------------------------------

    def _fleet(self, name: str, config_name: str) -> Fleet:
        config = self._configs.get(config_name)
        models = {v["ModelName"]: self._models.get(v["ModelName"]) for v in config["ProductionVariants"]}
        return Fleet(self._account, name, config, models)

    def _serving_fleet(self, name: str) -> Fleet:
        with self._records.lock:
            code = "ValidationError"
            record = self._records.get(
                name, AwsError(code, f"Endpoint {name} of account {self._account.account_id} not found.")
            )
            fleet = self._fleets.get(name)
            if fleet is None or record["EndpointStatus"] not in ("InService", "Updating"):
                raise AwsError(code, f"Endpoint {name} is not in service: it is {record['EndpointStatus']}.")
            return fleet

    def _model_error(self, name: str, variant: str, status: int, words: str) -> AwsError:
        arn = f"arn:aws:logs:{self._account.region}:{self._account.account_id}:log-group:{LOG_GROUP}/{name}"
        side = "client" if status < _FIRST_SERVER_ERROR else "server"
        message = (
            f'Received {side} error ({status}) from {variant} with message "{words}". See {arn} for more information.'
        )
        details = {"OriginalStatusCode": status, "OriginalMessage": words, "LogStreamArn": arn}
        return AwsError("ModelError", message, 424, details)

    def _get(self, name: str) -> Record:
        return self._records.get(name, self._missing(name))

    def _missing(self, name: str) -> AwsError:
        return invalid(f'Could not find endpoint "{self._arn(name)}".')

    def _arn(self, name: str) -> str:
        return f"arn:aws:sagemaker:{self._account.region}:{self._account.account_id}:endpoint/{name}"

    def _change(self, record: Record, status: str) -> None:
        record |= {"EndpointStatus": status, "LastModifiedTime": datetime.now(UTC)}


def _headers(request: dict[str, Any]) -> dict[str, str]:
    named = {
        "Content-Type": request.get("ContentType", "application/octet-stream"),
        "Accept": request.get("Accept", "*/*"),
        "X-Amzn-SageMaker-Custom-Attributes": request.get("CustomAttributes", ""),
    }
    return {name: value for name, value in named.items() if value}


def _described(variant: dict[str, Any]) -> dict[str, Any]:
    count, weight = variant.get("InitialInstanceCount", 1), variant.get("InitialVariantWeight", 1.0)
    return {
        "VariantName": variant["VariantName"],
        "CurrentWeight": weight,
        "DesiredWeight": weight,
        "CurrentInstanceCount": count,
        "DesiredInstanceCount": count,
    }

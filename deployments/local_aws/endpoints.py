"""SageMaker's endpoints: created, updated blue/green, invoked, deleted."""

import http.client
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from deployments.local_aws.account import Account
from deployments.local_aws.fleets import LOG_GROUP, Fleet
from deployments.local_aws.model_server import StartError
from deployments.local_aws.models import EndpointConfigs, Models
from deployments.local_aws.protocol import AwsError, Operation
from deployments.local_aws.records import Record, Records, invalid, listing
from deployments.local_aws.tags import Tags

_INVOKE_SECONDS = 60.0  # the service's limit for one answer
_DRAIN_SECONDS = 5.0
_JOIN_SECONDS = 30.0
_CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
_TIMED_OUT = (
    "Your invocation timed out while waiting for a response from container primary. Review the latency metrics for "
    "each container in Amazon CloudWatch, resolve the issue, and try again."
)
_FIRST_ERROR = 400
_FIRST_SERVER_ERROR = 500
_REASON_LIMIT = 1024
_SUMMARY = ("EndpointName", "EndpointArn", "CreationTime", "LastModifiedTime", "EndpointStatus")

_log = logging.getLogger(__name__)


class Endpoints:
    """The endpoints of an account; each changes in a thread of its own.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateEndpoint.html
    """

    def __init__(self, account: Account, models: Models, configs: EndpointConfigs, tags: Tags) -> None:
        self._account, self._models, self._configs, self._tags = account, models, configs, tags
        self._records = Records()
        self._fleets: dict[str, Fleet] = {}  # that answer
        self._starting: set[Fleet] = set()
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
        with self._records.lock:
            self._records.add(name, record, invalid(f'Cannot create already existing endpoint "{arn}".'))
            self._tags.keep(arn, request)
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
        name = request["EndpointName"]
        with self._records.lock:
            record = self._get(name)
            if record["EndpointStatus"] == "Failed":
                message = f'Cannot update endpoint "{record["EndpointArn"]}": it is Failed, and can only be deleted.'
                raise invalid(message)
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
        with self._records.lock:  # an update takes a fleet out of service under the same lock, and drains it then
            instance = self._serving_fleet(name).reserve(request.get("TargetVariant"))
        try:
            answer = instance.server.invoke(request["Body"], _headers(request), _INVOKE_SECONDS)
        except TimeoutError:
            raise self._model_error(name, 0, _TIMED_OUT) from None
        except (OSError, http.client.HTTPException) as error:
            raise self._model_error(name, 503, f"The container did not answer: {error!r}") from error
        if answer.status >= _FIRST_ERROR:
            raise self._model_error(name, answer.status, answer.body.decode("utf-8", "replace"))
        attributes = answer.header(_CUSTOM_ATTRIBUTES)
        return {
            "Body": answer.body,
            "ContentType": answer.header("Content-Type") or "application/octet-stream",
            "InvokedProductionVariant": instance.variant,
            **({"CustomAttributes": attributes} if attributes else {}),
        }

    def stop(self) -> None:
        """End every server, also those that are only starting."""
        with self._records.lock:
            fleets = [*self._fleets.values(), *self._starting]
            self._fleets.clear()
        with ThreadPoolExecutor(max(len(fleets), 1)) as pool:
            list(pool.map(lambda fleet: fleet.stop(0), fleets))
        for thread in self._threads:
            thread.join(_JOIN_SECONDS)

    # --- what happens in the background --------------------------------------------------------------------------

    def _bring_up(self, record: Record, fleet: Fleet) -> None:
        reason = self._start(fleet)
        if reason is None:
            self._switch(record, fleet)
            return
        with self._records.lock:
            record["FailureReason"] = reason
            self._change(record, "Failed")

    def _replace(self, record: Record, fleet: Fleet) -> None:
        old = self._fleets[record["EndpointName"]]
        reason = self._start(fleet)
        if reason is None:
            self._switch(record, fleet)
            old.stop(_INVOKE_SECONDS)
            return
        with self._records.lock:
            # Rolled back: in service with the old configuration, and only the reason tells.
            record["FailureReason"] = reason
            self._change(record, "InService")

    def _start(self, fleet: Fleet) -> str | None:
        """Start a fleet; return why it did not, or None."""
        with self._records.lock:
            self._starting.add(fleet)
        try:
            fleet.start()
        except StartError as error:
            return str(error)[:_REASON_LIMIT]
        except Exception as error:  # noqa: BLE001 - whatever it was, the endpoint must not be Creating for ever
            _log.exception("The fleet of %s could not be started", fleet.config_name)
            return f"InternalServerError: the local AWS failed: {error!r}"[:_REASON_LIMIT]
        finally:
            with self._records.lock:
                self._starting.discard(fleet)
        return None

    def _switch(self, record: Record, fleet: Fleet) -> None:
        with self._records.lock:
            self._fleets[record["EndpointName"]] = fleet
            record.pop("FailureReason", None)
            record["EndpointConfigName"] = fleet.config_name
            record["ProductionVariants"] = [_described(variant, fleet.models) for variant in fleet.variants]
            self._change(record, "InService")

    def _take_down(self, name: str) -> None:
        with self._records.lock:
            fleet = self._fleets.pop(name, None)
        if fleet:
            fleet.stop(_DRAIN_SECONDS)
        with self._records.lock:
            self._tags.forget(self._arn(name))
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

    def _model_error(self, name: str, status: int, words: str) -> AwsError:
        region, account_id, group = self._account.region, self._account.account_id, f"{LOG_GROUP}/{name}"
        side = "client" if _FIRST_ERROR <= status < _FIRST_SERVER_ERROR else "server"
        console = (
            f"https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}#logEventViewer:group={group}"
        )
        message = (
            f'Received {side} error ({status}) from primary with message "{words}". See {console} in account '
            f"{account_id} for more information."
        )
        arn = f"arn:aws:logs:{region}:{account_id}:log-group:{group}"
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
        _CUSTOM_ATTRIBUTES: request.get("CustomAttributes", ""),
    }
    return {name: value for name, value in named.items() if value}


def _described(variant: dict[str, Any], models: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    count, weight = variant.get("InitialInstanceCount", 1), variant.get("InitialVariantWeight", 1.0)
    image = models[variant["ModelName"]]["PrimaryContainer"]["Image"]
    return {
        "VariantName": variant["VariantName"],
        "DeployedImages": [
            {"SpecifiedImage": image, "ResolvedImage": image, "ResolutionTime": datetime.now(UTC)},
        ],
        "CurrentWeight": weight,
        "DesiredWeight": weight,
        "CurrentInstanceCount": count,
        "DesiredInstanceCount": count,
    }

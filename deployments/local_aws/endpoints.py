"""SageMaker's endpoints: created, updated blue/green, given more or fewer servers, deleted."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from deployments.local_aws.account import Account
from deployments.local_aws.alarms import Alarms
from deployments.local_aws.blue_green import (
    BlueGreenDeployment,
    RollbackError,
    alarm_names,
    check_deployment_config,
)
from deployments.local_aws.capacity_changes import CapacityChange, accepted_changes, retained
from deployments.local_aws.fleets import Fleet, Instance
from deployments.local_aws.invocations import INVOKE_SECONDS
from deployments.local_aws.model_server import StartError
from deployments.local_aws.models import EndpointConfigs, Models
from deployments.local_aws.protocol import AwsError, Operation
from deployments.local_aws.records import Record, Records, invalid, listing
from deployments.local_aws.serverless import ServerlessFleet
from deployments.local_aws.serverless_requests import check_conversion, check_guardrails, is_serverless
from deployments.local_aws.tags import Tags
from deployments.local_aws.traffic import Traffic

_DRAIN_SECONDS = 5.0
_JOIN_SECONDS = 30.0
_REASON_LIMIT = 1024
_SUMMARY = ("EndpointName", "EndpointArn", "CreationTime", "LastModifiedTime", "EndpointStatus")
_CHANGING = ("Creating", "Updating", "RollingBack", "Deleting")
_ANSWERING = ("InService", "Updating", "RollingBack")

_log = logging.getLogger(__name__)


class Endpoints:
    """The endpoints of an account; each changes in a thread of its own.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateEndpoint.html

    ``may_update`` is asked with an endpoint's name and the variants of the old and of the new configuration, and raises
    AwsError where somebody objects; ``deleted`` is called with the name of an endpoint that is being deleted.
    """

    def __init__(self, account: Account, models: Models, configs: EndpointConfigs, tags: Tags, alarms: Alarms) -> None:
        self._account, self._models, self._configs, self._tags = account, models, configs, tags
        self._alarms = alarms
        self.may_update: Callable[[str, list[Any], list[Any]], None] = lambda _name, _old, _new: None
        self.deleted: Callable[[str], None] = lambda _name: None
        self._records = Records()
        self._traffic: dict[str, Traffic] = {}  # of those that answer
        self._others: set[Fleet] = set()  # fleets that only start, or only end
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()

    def operations(self) -> dict[str, Operation]:
        """Return its operations by their API names."""
        return {
            "CreateEndpoint": self.create,
            "DescribeEndpoint": self.describe,
            "ListEndpoints": self.list,
            "UpdateEndpoint": self.update,
            "UpdateEndpointWeightsAndCapacities": self.update_capacities,
            "DeleteEndpoint": self.delete,
        }

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        """Accept an endpoint and begin to start its servers."""
        name, config = request["EndpointName"], self._configs.get(request["EndpointConfigName"])
        arn, now = self._arn(name), datetime.now(UTC)
        self._check_deployment(request.get("DeploymentConfig", {}), config)
        fleet = self._fleet(name, config)
        record: Record = {
            "EndpointName": name,
            "EndpointArn": arn,
            "EndpointConfigName": fleet.config_name,
            "EndpointStatus": "Creating",
            "CreationTime": now,
            "LastModifiedTime": now,
        }
        if "DeploymentConfig" in request:
            record["LastDeploymentConfig"] = request["DeploymentConfig"]
        with self._records.lock:
            self._records.add(name, record, invalid(f'Cannot create already existing endpoint "{arn}".'))
            self._tags.keep(arn, request)
        self._in_background(lambda: self._bring_up(record, fleet), f"create-{name}")
        return {"EndpointArn": arn}

    def describe(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return what there is to know of an endpoint."""
        name = request["EndpointName"]
        with self._records.lock:
            record = dict(self._get(name))
            desired = record.pop("DesiredVariants", {})
            if name in self._traffic:
                variants = self._traffic[name].fleet.described()
                record["ProductionVariants"] = [one | desired.get(one["VariantName"], {}) for one in variants]
            return record

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
            record = self._changeable(name)
            blue, config = self._traffic[name].fleet, self._configs.get(request["EndpointConfigName"])
            check_conversion(blue.variants, config["ProductionVariants"])
            if request.get("RetainAllVariantProperties"):
                config = retained(config, blue, request.get("ExcludeRetainedVariantProperties", []))
            deployment_config = request.get("DeploymentConfig", {})
            if request.get("RetainDeploymentConfig"):
                deployment_config = record.get("LastDeploymentConfig", {})
            self._check_deployment(deployment_config, config)
            self.may_update(name, blue.variants, config["ProductionVariants"])
            green = self._fleet(name, config)
            record.pop("LastDeploymentConfig", None)
            record |= {"LastDeploymentConfig": deployment_config} if deployment_config else {}
            self._change(record, "Updating")
            self._announce(record, green, "Creating")
        self._in_background(lambda: self._replace(record, green, deployment_config), f"update-{name}")
        return {"EndpointArn": record["EndpointArn"]}

    def update_capacities(self, request: dict[str, Any]) -> dict[str, Any]:
        """Begin to change how many servers variants have, and which share of the requests.

        https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateEndpointWeightsAndCapacities.html
        """
        name = request["EndpointName"]
        with self._records.lock:
            record = self._changeable(name)
            fleet = self._traffic[name].fleet
            changes = accepted_changes(request["DesiredWeightsAndCapacities"], fleet)
            record["DesiredVariants"] = {change.variant: change.desired() for change in changes}
            self._change(record, "Updating")
        self._in_background(lambda: self._apply(record, fleet, changes), f"scale-{name}")
        return {"EndpointArn": record["EndpointArn"]}

    def delete(self, request: dict[str, Any]) -> dict[str, Any]:
        """Begin to delete an endpoint."""
        name = request["EndpointName"]
        with self._records.lock:
            record = self._get(name)
            if record["EndpointStatus"] in _CHANGING:
                message = f'Cannot update in-progress endpoint "{record["EndpointArn"]}".'
                raise invalid(message)
            self._change(record, "Deleting")
        self.deleted(name)
        self._in_background(lambda: self._take_down(name), f"delete-{name}")
        return {}

    def reserve(self, name: str, variant: str | None) -> tuple[Fleet, Instance]:
        """Return the server for a request to an endpoint, and its fleet.

        Raises:
            AwsError: There is no such endpoint or variant, or it is not in service.
        """
        # A deletion takes the traffic away under the same lock, and drains its fleet then.
        with self._records.lock:
            code = "ValidationError"
            missing = AwsError(code, f"Endpoint {name} of account {self._account.account_id} not found.")
            record = self._records.get(name, missing)
            if name not in self._traffic or record["EndpointStatus"] not in _ANSWERING:
                raise AwsError(code, f"Endpoint {name} is not in service: it is {record['EndpointStatus']}.")
            return self._traffic[name].reserve(variant)

    def stop(self) -> None:
        """End every server, also those that are only starting."""
        self._stopping.set()
        with self._records.lock:
            fleets = {traffic.fleet for traffic in self._traffic.values()} | self._others
            self._traffic.clear()
        with ThreadPoolExecutor(max(len(fleets), 1)) as pool:
            list(pool.map(lambda fleet: fleet.stop(0), fleets))
        for thread in self._threads:
            thread.join(_JOIN_SECONDS)

    # --- what happens in the background --------------------------------------------------------------------------

    def _bring_up(self, record: Record, fleet: Fleet) -> None:
        reason = self._start(fleet)
        with self._records.lock:
            if reason is None:
                self._traffic[record["EndpointName"]] = Traffic(fleet)
                self._others.discard(fleet)
            else:
                record["FailureReason"] = reason
            self._change(record, "InService" if reason is None else "Failed")

    def _replace(self, record: Record, green: Fleet, config: Mapping[str, Any]) -> None:
        traffic = self._traffic[record["EndpointName"]]
        deployment = BlueGreenDeployment(config, traffic, self._alarms.state, self._stopping)
        reason = self._start(green)
        if reason is None:
            try:
                deployment.shift(green, lambda status: self._announce(record, green, status))
            except RollbackError as error:
                reason = str(error)[:_REASON_LIMIT]
        if reason is not None:
            self._roll_back(record, traffic, green, reason)
            return
        with self._records.lock:
            blue = traffic.settle()
            self._others = {*self._others, blue} - {green}
            record["EndpointConfigName"] = green.config_name
        blue.stop(INVOKE_SECONDS)
        self._in_service(record, blue)

    def _roll_back(self, record: Record, traffic: Traffic, green: Fleet, reason: str) -> None:
        """Leave the old configuration in service: only its name, and the reason, tell that there was an update."""
        with self._records.lock:
            traffic.back()
            self._change(record, "RollingBack")
            self._announce(record, green, "Deleting")
        green.stop(INVOKE_SECONDS)
        self._in_service(record, green, reason)

    def _apply(self, record: Record, fleet: Fleet, changes: Sequence[CapacityChange]) -> None:
        before, reason = {change.variant: fleet.count(change.variant) for change in changes}, None
        try:
            for change in changes:
                fleet.scale(change.variant, change.instances, INVOKE_SECONDS)
        except StartError as error:
            reason = str(error)[:_REASON_LIMIT]
            with self._records.lock:
                record.pop("DesiredVariants", None)
                self._change(record, "RollingBack")
            for variant, count in before.items():
                with suppress(StartError):
                    fleet.scale(variant, count, INVOKE_SECONDS)
        if reason is None:
            fleet.weights |= {change.variant: change.weight for change in changes}
        self._in_service(record, None, reason)

    def _in_service(self, record: Record, ended: Fleet | None, reason: str | None = None) -> None:
        with self._records.lock:
            if ended:
                self._others.discard(ended)
            for member in ("PendingDeploymentSummary", "DesiredVariants", "FailureReason"):
                record.pop(member, None)
            record |= {"FailureReason": reason} if reason else {}
            self._change(record, "InService")

    def _start(self, fleet: Fleet) -> str | None:
        """Start a fleet; return why it did not, or None."""
        with self._records.lock:
            self._others.add(fleet)
        try:
            fleet.start()
        except StartError as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001 - whatever it was, the endpoint must not be Creating for ever
            _log.exception("The fleet of %s could not be started", fleet.config_name)
            reason = f"InternalServerError: the local AWS failed: {error!r}"
        else:
            return None
        with self._records.lock:
            self._others.discard(fleet)
        return reason[:_REASON_LIMIT]

    def _take_down(self, name: str) -> None:
        with self._records.lock:
            traffic = self._traffic.pop(name, None)
            self._others |= {traffic.fleet} if traffic else set()
        if traffic:
            traffic.fleet.stop(_DRAIN_SECONDS)
        with self._records.lock:
            self._others -= {traffic.fleet} if traffic else set()
            self._tags.forget(self._arn(name))
            self._records.remove(name, self._missing(name))

    def _in_background(self, work: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=work, daemon=True, name=name)
        self._threads = [*(running for running in self._threads if running.is_alive()), thread]
        thread.start()

    # --- what it knows -------------------------------------------------------------------------------------------

    def _fleet(self, name: str, config: Mapping[str, Any]) -> Fleet:
        models = {v["ModelName"]: self._models.get(v["ModelName"]) for v in config["ProductionVariants"]}
        kind = ServerlessFleet if is_serverless(config["ProductionVariants"]) else Fleet
        return kind(self._account, name, config, models)

    def _check_deployment(self, deployment_config: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        check_guardrails(deployment_config, config["ProductionVariants"])
        counts = [variant.get("InitialInstanceCount", 1) for variant in config["ProductionVariants"]]
        check_deployment_config(deployment_config, counts)
        unknown = [name for name in alarm_names(deployment_config) if self._alarms.state(name) is None]
        if unknown:
            message = f"AutoRollbackConfiguration names alarms that do not exist: {', '.join(unknown)}"
            raise invalid(message)

    def _changeable(self, name: str) -> Record:
        record = self._get(name)
        if record["EndpointStatus"] == "Failed":
            message = f'Cannot update endpoint "{record["EndpointArn"]}": it is Failed, and can only be deleted.'
            raise invalid(message)
        if record["EndpointStatus"] != "InService":
            message = f'Cannot update in-progress endpoint "{record["EndpointArn"]}".'
            raise invalid(message)
        return record

    def _announce(self, record: Record, green: Fleet, status: str) -> None:
        now = datetime.now(UTC)
        variants = [one | {"VariantStatus": [{"Status": status, "StartTime": now}]} for one in green.described()]
        with self._records.lock:
            began = record.get("PendingDeploymentSummary", {"StartTime": now})["StartTime"]
            record["PendingDeploymentSummary"] = {
                "EndpointConfigName": green.config_name,
                "ProductionVariants": variants,
                "StartTime": began,
            }

    def _get(self, name: str) -> Record:
        return self._records.get(name, self._missing(name))

    def _missing(self, name: str) -> AwsError:
        return invalid(f'Could not find endpoint "{self._arn(name)}".')

    def _arn(self, name: str) -> str:
        return f"arn:aws:sagemaker:{self._account.region}:{self._account.account_id}:endpoint/{name}"

    def _change(self, record: Record, status: str) -> None:
        record |= {"EndpointStatus": status, "LastModifiedTime": datetime.now(UTC)}

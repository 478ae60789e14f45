"""What deployments/prefect.yaml says, for those who read it beside `prefect deploy`."""

import asyncio
import signal
from pathlib import Path
from typing import Any, cast

import yaml
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.deployments.runner import RunnerDeployment
from prefect.runner import Runner
from prefect.runner.storage import LocalStorage
from prefect.schedules import Schedule
from pydantic import BaseModel, ConfigDict

ROOT = Path(__file__).parents[1]
PREFECT_FILE = Path(__file__).with_name("prefect.yaml")


class WorkPool(BaseModel):
    """Who runs a deployment, and with which settings; served ones need none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    job_variables: dict[str, Any]


class Deployment(BaseModel):
    """A deployment as the file says it; Prefect ignores fields that it does not know, this refuses them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    entrypoint: str
    description: str
    version: str
    tags: tuple[str, ...]
    parameters: dict[str, Any]
    concurrency_limit: ConcurrencyLimitConfig
    schedules: tuple[Schedule, ...]
    paused: bool
    work_pool: WorkPool


def load_deployments(path: Path = PREFECT_FILE) -> tuple[Deployment, ...]:
    """Read the deployments.

    Raises:
        ValidationError: A field is missing, unknown, or not what it should be.
    """
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return tuple(Deployment.model_validate(item) for item in content["deployments"])


def served(deployment: Deployment) -> RunnerDeployment:
    """Return a deployment for `serve`: the same in all but the work pool, of which it knows nothing.

    Its runs start in this checkout. One that was deployed to a pool before stays in it, without its job variables.

    Raises:
        Exception: Whatever the flow's file raises when it is imported.
    """
    made = RunnerDeployment.from_storage(
        storage=LocalStorage(str(ROOT)),
        entrypoint=deployment.entrypoint,
        name=deployment.name,
        description=deployment.description,
        version=deployment.version,
        tags=list(deployment.tags),
        parameters=deployment.parameters,
        concurrency_limit=deployment.concurrency_limit,
        schedules=list(deployment.schedules),
        paused=deployment.paused,
    )
    return cast("RunnerDeployment", made)  # a coroutine only for callers that are one


class ServingRunner(Runner):
    """What `prefect.serve` serves with, but it finishes the runs that it has begun before it ends.

    Prefect 3.8's own exits from within the signal's handler, in the middle of whatever is being done: deployments may
    stay unpaused. Cancelled instead, it kills its runs, which cannot stop their jobs and read Running for ever.
    """

    async def serve(self) -> None:
        """Run what is asked for until SIGTERM or Ctrl-C; a second Ctrl-C waits for nothing."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._interrupted)
        await self.start()

    def handle_sigterm(self, *_args: Any, **_kwargs: Any) -> None:
        """Take no more runs; `start` pauses the deployments, waits for the runs there are, and returns."""
        self._loops_task_group.cancel_scope.cancel()

    def _interrupted(self) -> None:
        # Ctrl-C in a terminal has reached the runs, too: they stop what they started.
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
        self.handle_sigterm()

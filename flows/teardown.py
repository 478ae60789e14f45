"""Take down what bills by the hour: endpoints of this project, with their configurations and models.

python -m flows.teardown                      everything that carries this project's tag
python -m flows.teardown --endpoint NAME      one endpoint
python -m flows.teardown --front NAME         the function in front, too
python -m flows.teardown --dry-run            only say what would go
"""

from typing import Annotated

from prefect import flow

from flows import command_line
from tasks.aws.settings import load_settings
from tasks.cancellation import stop_what_it_started
from tasks.contracts import EndpointName, FrontName, TeardownResult, titled
from tasks.endpoints import delete_endpoint, list_endpoints
from tasks.functions import delete_function
from tasks.results import kept_as_json


@kept_as_json
@flow(
    name="teardown",
    flow_run_name="tear down",
    on_cancellation=[stop_what_it_started],
)
def teardown(
    endpoint: Annotated[EndpointName | None, titled("Endpoint")] = None,
    *,
    front: Annotated[FrontName | None, titled("Function in front")] = None,
    dry_run: Annotated[bool, titled("Dry run")] = False,
) -> TeardownResult:
    """Delete endpoints, and a function; datasets, models in S3 and records of jobs stay, they cost next to nothing.

    Args:
        endpoint: The one to delete, flows-…; none: all of this project's.
        front: A function in front to delete, flows-…, with what is kept warm for it; none: no function.
        dry_run: Only say what would be deleted.
    """
    load_settings()
    names = (endpoint,) if endpoint else list_endpoints()
    if dry_run:
        fronts = (f"function {front}",) if front else ()
        return TeardownResult(deleted=(), kept=(*fronts, *(f"endpoint {name}" for name in names)))
    # The front first: nobody is to ask through it what is being deleted.
    fronts = (f"function {front}",) if front and delete_function(front) else ()
    results = [delete_endpoint(name) for name in names]
    return TeardownResult(deleted=(*fronts, *(gone for result in results for gone in result.deleted)), kept=())


def show(result: TeardownResult) -> str:
    """Say what is gone, and what a dry run left."""
    lines = [*(f"deleted {name}" for name in result.deleted), *(f"would delete {name}" for name in result.kept)]
    return "\n".join(lines) or "There was nothing to delete"


if __name__ == "__main__":
    command_line.run(teardown, show)

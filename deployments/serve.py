"""Serve every deployment of deployments/prefect.yaml from one process: no work pool, no worker.

python -m deployments.serve               until Ctrl-C or SIGTERM; then pauses schedules and finishes its runs
python -m deployments.serve --limit 2     at most two runs at once

It runs where its environment points: PREFECT_API_URL is the server, the AWS variables are the AWS of the flows.
"""

import argparse
import asyncio
import os
import sys
import urllib.error
import urllib.request
from contextlib import suppress

_MOST_RUNS = 4


def main(arguments: list[str]) -> int:
    """Serve until somebody ends it; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deployments.serve", description=__doc__.split("\n")[0])
    parser.add_argument("--limit", type=int, default=_MOST_RUNS, help=f"most runs at once, {_MOST_RUNS} by default")
    limit = parser.parse_args(arguments).limit
    # Prefect takes two seconds to import, and --help needs none of it.
    from prefect.settings import get_current_settings  # noqa: PLC0415

    url = get_current_settings().api.url
    if trouble := trouble_with(url):
        sys.stderr.write(f"{trouble}\n")
        return 1
    _serve(limit, f"for the Prefect server at {url}")
    return 0


def _serve(limit: int, where: str) -> None:
    from deployments.catalogue import ROOT, ServingRunner, load_deployments, served  # noqa: PLC0415 - imports Prefect

    runner = ServingRunner(limit=limit)
    deployments = load_deployments()
    for deployment in deployments:
        runner.add_deployment(served(deployment))
    sys.stdout.write(f"Serving {len(deployments)} deployments, at most {limit} runs at once, {where}\n")
    sys.stdout.flush()
    # For the hooks of a cancelled run, Prefect copies the whole checkout to where it stands, unless it stands in it.
    os.chdir(ROOT)
    with suppress(KeyboardInterrupt):
        asyncio.run(runner.serve())


def trouble_with(url: str | None) -> str | None:
    """Say why nothing can be served; without a server that others reach, nobody could start a run."""
    how = "start one (make ui)"
    if url is None:
        return f"No Prefect server is named: {how}, and set PREFECT_API_URL to its address"
    try:
        urllib.request.urlopen(f"{url}/health", timeout=10).close()  # noqa: S310 - the address that Prefect's settings name
    except urllib.error.HTTPError:
        return None  # a server that wants a key answers, too: Prefect's client has it
    except (urllib.error.URLError, OSError, ValueError):
        return f"No Prefect server answers at {url}: {how}, or set PREFECT_API_URL to the address of yours"
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

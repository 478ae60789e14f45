"""``python -m deployments.local_aws policy``: the smallest policy that would have been enough for a recorded run."""

import argparse
import json
import sys
from pathlib import Path

from deployments.local_aws.usage import RECORD_FILE, minimal_policy, principals_like, read_uses


def print_policy(arguments: list[str], default_root: Path) -> int:
    """Print the policy of one principal and return the exit code."""
    parser = argparse.ArgumentParser(
        "python -m deployments.local_aws policy",
        description="The smallest policy for what a principal used in the last run; conditions are yours to add.",
    )
    parser.add_argument("--principal", default="worker", help="a part of its name: worker, training, endpoint, ...")
    parser.add_argument("--root", type=Path, default=default_root, help="where the local AWS had its files")
    options = parser.parse_args(arguments)
    uses = read_uses(options.root / RECORD_FILE)
    found = principals_like(uses, options.principal)
    if len(found) != 1:
        known = ", ".join(found or principals_like(uses, "")) or f"nobody: {options.root / RECORD_FILE} has no record"
        sys.stderr.write(f"{options.principal} must be a part of one principal's name; there is {known}\n")
        return 1
    sys.stdout.write(f"{json.dumps(minimal_policy(uses, found[0]), indent=2)}\n")
    return 0

"""``python -m deployments.local_aws [--port N] [--root DIR] [-- COMMAND…]``, or ``policy``; see command_line.py."""

import os
import sys


def main() -> int:
    """Leave the user's own account behind, then run the command line."""
    # Before moto is imported, which looks for the user's profile then: nothing here may know a real key.
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    from deployments.local_aws import command_line  # noqa: PLC0415 - see above

    return command_line.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())

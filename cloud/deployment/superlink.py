"""Flower's SuperLink whose control interface obeys this cloud's own programs only.

Flower's open-source SuperLink runs whatever app any caller of its port submits. Here a caller must present
the cloud's token, and where the system tells, belong to the account that the SuperLink runs as.

    python -P -m fedperfit.cloud.deployment.superlink TOKEN-FILE OPTIONS-OF-FLOWER-SUPERLINK
"""

import os
import sys
from pathlib import Path

from starlette.middleware import Middleware

from fedperfit.cloud.deployment.callers import SOCKETS, OneAccountOnly
from fedperfit.protocol.system.flower_internals import run_superlink


def main() -> None:
    """Run the SuperLink of the command line until it is told to stop."""
    token = Path(sys.argv.pop(1)).read_text()
    os.environ["FORWARDED_ALLOW_IPS"] = ""  # else a caller's header could name another caller
    own = [Middleware(OneAccountOnly, account=os.geteuid())] if SOCKETS.exists() else []
    run_superlink(token, own)


if __name__ == "__main__":
    main()

"""`heddle-init`: writes the rules of mesh/interception.py into the network namespace it runs in, and checks them.

Runs as the init container `istio-init`, as root with NET_ADMIN and NET_RAW, and ends before anything else of the pod
starts. Exit 0: every rule is in force. Exit 1: one sentence on stderr says what is missing and the way out.
Running it again gives the same rules; `heddle-init --clean` takes them away.
"""

from __future__ import annotations

import logging
import sys

from mesh.errors import HeddleError
from mesh.interception import parse_arguments
from netfilter.rules import Machine, clean, intercept, run_program

log = logging.getLogger("heddle-init")


def main(arguments: list[str] | None = None) -> int:
    """The console script. `--clean` removes the rules; every other argument is of mesh.interception.arguments."""
    logging.basicConfig(level=logging.INFO, format="heddle-init: %(message)s", stream=sys.stderr)
    words = sys.argv[1:] if arguments is None else arguments
    machine = Machine(run_program)
    try:
        if words == ["--clean"]:
            clean(machine)
        else:
            intercept(parse_arguments(words), machine)
    except HeddleError as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

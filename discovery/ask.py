"""`python -m discovery.ask /v1/status`: prints what an operator may read of the discovery in this container.

It asks the process on its Unix socket, which only this container's own user can open; whoever may run a command here
(`pods/exec` in the control plane's namespace) is an operator (docs/adr/0155-status-by-exec.md). Standard library alone:
it starts in a moment, and takes nothing of the memory that discovery was given.
"""

from __future__ import annotations

import http.client
import json
import sys

from serving.operator_socket import SOCKET, ask


def main(arguments: list[str] | None = None) -> int:
    """0 and the answer; 1 and why not, on standard error; 2 when it is used wrongly."""
    given = sys.argv[1:] if arguments is None else arguments
    if len(given) not in (1, 2) or not given[0].startswith("/"):
        sys.stderr.write("usage: python -m discovery.ask PATH [SOCKET]\n")
        return 2
    place = given[1] if len(given) == 2 else SOCKET
    try:
        status, body = ask(given[0], place)
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"discovery does not answer on {place}: {error or type(error).__name__}\n")
        return 1
    if status != 200:
        sys.stderr.write(_words(status, body) + "\n")
        return 1
    sys.stdout.buffer.write(body)
    return 0


def _words(status: int, body: bytes) -> str:
    try:
        error = json.loads(body)["error"]
        return str(error["message"]) + (f" ({error['hint']})" if error.get("hint") else "")
    except (ValueError, KeyError, TypeError):
        return f"discovery answered {status}"


if __name__ == "__main__":
    sys.exit(main())

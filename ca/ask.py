"""`python -m ca.ask GET|POST PATH [BODY]`: asks the ca in this container as an operator, and prints its JSON answer.

It exits with 4 when the answer is an error, which is printed with its `status`; 1 when nobody answers.
"""

from __future__ import annotations

import http.client
import json
import sys

from serving.operator_socket import SOCKET, ask

REFUSED = 4
_USAGE = "usage: python -m ca.ask GET|POST PATH [BODY [SOCKET]]\n"


def main(arguments: list[str] | None = None) -> int:
    """The exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if not 2 <= len(given) <= 4 or given[0] not in ("GET", "POST") or not given[1].startswith("/"):
        sys.stderr.write(_USAGE)
        return 2
    method, path, body, place = (*given, *("", SOCKET)[len(given) - 2 :])
    try:
        status, answer = ask(path, place, method, body.encode() if body else None)
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"the ca does not answer on {place}: {error or type(error).__name__}\n")
        return 1
    if status < 400:
        sys.stdout.write(answer.decode())
        return 0
    sys.stdout.write(json.dumps({"status": status, "error": _error(answer)}))
    return REFUSED


def _error(answer: bytes) -> object:
    try:
        return json.loads(answer)["error"]
    except (ValueError, KeyError, TypeError):
        return {"message": f"the ca answered {answer[:200]!r}"}


if __name__ == "__main__":
    sys.exit(main())

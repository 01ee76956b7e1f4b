"""`python -m svid.probe JSON`: makes a TLS handshake with each target, as a peer that trusts certain roots alone.

Run in a proxy's container, from where every proxy can be reached. The argument is `{"roots": PEM, "targets": [[name,
host, port], ...]}`; printed is `{name: verdict}`: "" when the certificate that was shown leads to one of the roots,
`refused: ...` when it does not, `none: ...` when there was no handshake. It shows no certificate itself: with TLS 1.3
the other side proves itself all the same.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from svid.tls import client_context

SECONDS = 5.0
AT_ONCE = 16
ALPN = ["istio"]  # by which a proxy that takes plain text too knows its peers

Target = tuple[str, str, int]


def verdicts(roots: str, targets: Iterable[Target]) -> dict[str, str]:
    """By the targets' names."""
    context = client_context(roots)
    context.set_alpn_protocols(ALPN)
    known = list(targets)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = pool.map(lambda target: verdict(context, target[1], target[2]), known)
        return {target[0]: said for target, said in zip(known, found, strict=True)}


def verdict(context: ssl.SSLContext, host: str, port: int) -> str:
    """Of one handshake."""
    try:
        with socket.create_connection((host, port), SECONDS) as connection, context.wrap_socket(connection):
            return ""
    except ssl.SSLCertVerificationError as error:
        return f"refused: {error.verify_message}"
    except ssl.SSLError as error:
        return f"none: {error.reason or error}"
    except OSError as error:
        return f"none: {error.strerror or error or type(error).__name__}"


def main() -> None:
    asked = json.loads(sys.argv[1])
    sys.stdout.write(json.dumps(verdicts(asked["roots"], [tuple(target) for target in asked["targets"]])))


if __name__ == "__main__":
    main()

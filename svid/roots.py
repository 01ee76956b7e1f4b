"""By which roots a server of the control plane is known.

A module of its own: the agent needs it and nothing else of what makes certificates (docs/adr/0060).
"""

from __future__ import annotations

from collections.abc import Callable

from mesh.errors import Unavailable
from svid.material import SvidMaterial


def trusted(roots: Callable[[], str], current: SvidMaterial | None) -> str:
    """What proves a server (PEM): the mounted root certificates and the last bundle's, since either may be newer.

    `roots` reads the mounted ones. Unavailable when there are none of both.
    """
    try:
        mounted = roots()
    except (OSError, UnicodeDecodeError) as error:
        if current is None:
            raise Unavailable(f"the root certificate cannot be read: {error}") from None
        mounted = ""
    return mounted + "\n" + (current.bundle.pem if current else "")

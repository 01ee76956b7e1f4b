"""What a level of the test cluster needs and this machine lacks."""

from __future__ import annotations

import os
import shutil

# Where Debian puts what only root usually runs.
SEARCH = os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin") + ":/usr/local/sbin:/usr/sbin:/sbin"


class Missing(Exception):
    """A level cannot be started here. The message says what is missing and how to get it."""


def program(name: str, package: str) -> str:
    """The path of an installed program; Missing, naming Debian's package, when there is none."""
    found = shutil.which(name, path=SEARCH)
    if found is None:
        raise Missing(f"{name} is not installed (Debian and Ubuntu: apt-get install {package})")
    return found

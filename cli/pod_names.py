"""Which pods a person means: `name`, `namespace/name`, or the beginning of a name. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from mesh.errors import InvalidInput, NotFound
from mesh.objects import Key


def meant(pods: Iterable[Key], said: str, namespace: str = "") -> list[Key]:
    """The pod of that name, else those whose names begin so; of `namespace`, where `said` does not name one."""
    where, _, name = said.rpartition("/")
    where = where or namespace
    inside = [key for key in pods if not where or key.namespace == where]
    return [key for key in inside if key.name == name] or [key for key in inside if key.name.startswith(name)]


def the_one(pods: Iterable[Key], said: str, namespace: str, hint: str) -> Key:
    """The one pod that is meant; NotFound with `hint`, or InvalidInput with those that it could be."""
    found = meant(pods, said, namespace)
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotFound(f"there is no pod {said}", hint=hint)
    raise InvalidInput(f"{said} could be {', '.join(map(str, found))}", hint="write more of the name, or -n NAMESPACE")

"""Errors that a person or a caller can act on.

Each carries the HTTP status it deserves, the field it is about (a path such as `spec.http[0].route[1].weight`)
and a hint that says the way out. `str(error)` is one readable sentence with all three.
"""

from __future__ import annotations


class HeddleError(Exception):
    """Base of every error that Heddle raises on purpose; `status` is its HTTP status."""

    status: int = 500
    code: str = "internal"

    def __init__(self, message: str, *, field: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.hint = hint

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        way_out = f" ({self.hint})" if self.hint else ""
        return f"{where}{self.message}{way_out}"

    def as_json(self) -> dict[str, str]:
        """`{"code", "message"}` plus `field` and `hint` where there are any: the body of every HTTP error."""
        body = {"code": self.code, "message": self.message}
        if self.field:
            body["field"] = self.field
        if self.hint:
            body["hint"] = self.hint
        return body


class InvalidInput(HeddleError):
    """What was sent or written is wrong; sending it again unchanged cannot help."""

    status = 400
    code = "invalid"


class Unauthenticated(HeddleError):
    """The caller did not prove who it is."""

    status = 401
    code = "unauthenticated"


class Forbidden(HeddleError):
    """The caller is known, and may not do this."""

    status = 403
    code = "forbidden"


class Revoked(Forbidden):
    """The caller is known, and its certificate or identity has been revoked."""

    code = "revoked"


class NotFound(HeddleError):
    """The thing that was named does not exist (yet)."""

    status = 404
    code = "not-found"


class Conflict(HeddleError):
    """Two things claim the same name, port or place."""

    status = 409
    code = "conflict"


class Gone(HeddleError):
    """A session or version that was named is no longer known; start over."""

    status = 410
    code = "gone"


class TooLarge(HeddleError):
    """The body exceeds the limit that the message names."""

    status = 413
    code = "too-large"


class Unsupported(HeddleError):
    """The media type or version is not one that is spoken here."""

    status = 415
    code = "unsupported"


class Busy(HeddleError):
    """Too much at once; try again after a while: `retry_after` seconds, where that can be said."""

    status = 429
    code = "busy"

    def __init__(
        self, message: str, *, field: str | None = None, hint: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, field=field, hint=hint)
        self.retry_after = retry_after


class Unavailable(HeddleError):
    """A part that is needed does not answer; try again."""

    status = 503
    code = "unavailable"


class MissingPrerequisite(HeddleError):
    """This machine lacks something that Heddle needs (a program, a right, a kernel feature); the hint says how."""

    status = 503
    code = "missing-prerequisite"

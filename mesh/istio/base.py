"""What all models of Istio's kinds share: the `Model` base, field types, and the object round a spec.

A model mirrors one protobuf message of Istio's API (https://istio.io/latest/docs/reference/config/): fields in
snake_case with camelCase aliases, protobuf's defaults ("" and 0 for scalars, None for messages and wrapped scalars),
tuples for lists, `FrozenMap` for maps, so that every value is immutable and hashable. Shape is checked by pydantic;
what Istio's documentation says in words is checked by each model's `rules()`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Generic, NoReturn, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    Strict,
    model_validator,
)

from mesh.istio.durations import format_duration, parse_duration
from mesh.istio.schema import Cel, Schema
from mesh.problems import FieldProblem, Path, Step, show

S = TypeVar("S", bound="Model", covariant=True)
V = TypeVar("V")
PLANNED = "x-heddle-planned"


class FrozenMap(dict[str, V]):
    """A dict that can be hashed and not changed."""

    __slots__ = ()

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a FrozenMap cannot be changed")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[FrozenMap[V]], tuple[dict[str, V]]]:
        return FrozenMap, (dict(self),)


def _whole_number(value: object) -> object:
    """JSON has one kind of number: 5.0 is the integer 5."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _text_keys(value: object) -> object:
    """YAML reads the key of `8080: ...` as a number; in JSON, and so in Kubernetes, it is text."""
    if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
        return {str(key) if type(key) is int else key: item for key, item in value.items()}
    return value


def _seconds(value: object) -> object:
    if isinstance(value, str):
        return parse_duration(value)
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f"{value!r} is not a duration: write it with its unit, such as {value}s")
    return value


def _seconds_out(value: float) -> str:
    return format_duration(value)


def _freeze(value: object) -> object:
    """Any value of JSON as one that is immutable and hashable."""
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("a key is not text: put it in quotes")
        return FrozenMap({key: _freeze(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return tuple(_freeze(item) for item in value)
    if value is None or isinstance(value, str | int | float):
        return value
    raise ValueError(f"{show(value)} is no value of JSON: write text, a number, true or false")


Text = Annotated[str, Strict()]
Flag = Annotated[bool, Strict()]
Whole = Annotated[int, Strict(), BeforeValidator(_whole_number)]
UInt = Annotated[Whole, Field(ge=0, le=2**32 - 1)]
Int = Annotated[Whole, Field(ge=-(2**31), le=2**31 - 1)]
Real = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Duration = Annotated[
    float,
    Strict(),
    BeforeValidator(_seconds),
    PlainSerializer(_seconds_out, return_type=str, when_used="json"),
    Schema(type="string", pattern=r"^[+]?(0|(([0-9]+([.][0-9]*)?|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$"),
]
"""Seconds in Python, `1m30s` in manifests."""
TimeSpan = Annotated[Duration, Schema(Cel("duration(self) >= duration('1ms')", "it is shorter than 1ms"))]
"""A Duration that cannot be 0; the model's rules say the same (`check_duration`)."""
Map = Annotated[Mapping[str, V], BeforeValidator(_text_keys), AfterValidator(FrozenMap)]
Labels = Annotated[Mapping[str, Text], BeforeValidator(_text_keys), AfterValidator(FrozenMap)]
Struct = Annotated[Mapping[str, Any], BeforeValidator(_text_keys), AfterValidator(_freeze)]
"""google.protobuf.Struct: any mapping of JSON values, whose meaning is somebody else's."""
PortNumber = Annotated[UInt, Schema(minimum=1, maximum=65535)]
"""A port that must be one where it is set; the model's rules say so (`check_port`)."""
OptionalPort = Annotated[Whole, Field(ge=0, le=65535)]
"""A port, or 0 for none."""
EMPTY: FrozenMap[Any] = FrozenMap()


def camel(name: str) -> str:
    """protobuf's JSON name of a field: `consecutive_5xx_errors` -> `consecutive5xxErrors`."""
    first, *rest = name.rstrip("_").split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


def planned(default: Any = None, **extra: Any) -> Any:
    """A field that is read and checked, and not acted upon in this release; `unhonoured` names it when it is used."""
    return Field(default, json_schema_extra={PLANNED: True}, **extra)


class Model(BaseModel):
    """One message of Istio's API."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )

    planned_fields: ClassVar[frozenset[str]] = frozenset()
    cel: ClassVar[tuple[Cel, ...]] = ()
    """Rules between the fields of this message that the API server checks itself."""
    required: ClassVar[tuple[str, ...]] = ()
    """Fields (as manifests spell them) that `rules` asks for, although protobuf has a default for them."""
    limits: ClassVar[Mapping[str, int]] = {}
    """How much a field holds at most: entries of a list or mapping, characters of a text. From its `Schema`."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        cls.planned_fields = frozenset(
            name
            for name, info in cls.model_fields.items()
            if isinstance(info.json_schema_extra, dict) and info.json_schema_extra.get(PLANNED)
        )
        cls.limits = {
            name: mark.keywords[keyword]
            for name, info in cls.model_fields.items()
            for mark in info.metadata
            for keyword in ("maxItems", "maxProperties", "maxLength")
            if isinstance(mark, Schema) and keyword in mark.keywords
        }

    @model_validator(mode="before")
    @classmethod
    def _null_is_unset(cls, data: Any) -> Any:
        if isinstance(data, dict) and None in data.values():
            return {key: value for key, value in data.items() if value is not None}
        return data

    def rules(self) -> Iterable[FieldProblem]:
        """What is wrong with this message itself, paths relative to it; its fields answer for themselves."""
        return ()

    def partly_planned(self) -> Iterable[Path]:
        """Fields that are acted upon, but not with the value that they hold here."""
        return ()

    def manifest(self) -> dict[str, Any]:
        """The message as it stands in a manifest, with the fields that were set."""
        return self.model_dump(mode="json", exclude_unset=True)


def problem(*path: Step, says: str, hint: str = "", value: object = None, warning: bool = False) -> FieldProblem:
    """A `FieldProblem`; `value` None means that there is nothing to show."""
    return FieldProblem(path, says, hint, "" if value is None else show(value), warning)


def messages(model: Model, path: Path = ()) -> Iterator[tuple[Path, Model]]:
    """Every message within `model`, itself first, each with its path in the manifest's spelling."""
    yield path, model
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, Model | tuple | Mapping):
            yield from _inner(value, (*path, info.alias or name))


def _inner(value: object, path: Path) -> Iterator[tuple[Path, Model]]:
    if isinstance(value, Model):
        yield from messages(value, path)
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _inner(item, (*path, index))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _inner(item, (*path, str(key)))


def all_rules(model: Model, path: Path = ()) -> tuple[FieldProblem, ...]:
    """The problems and warnings of `model` and everything within it."""
    return tuple(
        found.under(*place)
        for place, message in messages(model, path)
        for found in (*message.rules(), *_over_limits(message))
    )


def _over_limits(message: Model) -> Iterator[FieldProblem]:
    for name, most in message.limits.items():
        value = getattr(message, name)
        if value and len(value) > most:
            alias = type(message).model_fields[name].alias or name
            unit = "characters" if isinstance(value, str) else "entries"
            yield problem(alias, says=f"{len(value)} {unit} are more than {most}", hint="shorten or split it")


def unhonoured(model: Model, path: Path = ()) -> tuple[Path, ...]:
    """Paths of the fields in use that this release does not act upon, without what lies below them."""
    return tuple(_unhonoured(model, path))


def _unhonoured(model: Model, path: Path) -> Iterator[Path]:
    for place, message in _acted_upon(model, path):
        for name in sorted(message.planned_fields & message.model_fields_set):
            info = type(message).model_fields[name]
            if getattr(message, name) != info.get_default(call_default_factory=True):
                yield (*place, info.alias or name)
        for relative in message.partly_planned():
            yield (*place, *relative)


def _acted_upon(model: Model, path: Path) -> Iterator[tuple[Path, Model]]:
    """`messages` without those that lie within a planned field."""
    yield path, model
    for name, info in type(model).model_fields.items():
        if name in model.planned_fields:
            continue
        for place, child in _children(getattr(model, name), (*path, info.alias or name)):
            yield from _acted_upon(child, place)


def _children(value: object, path: Path) -> Iterator[tuple[Path, Model]]:
    if isinstance(value, Model):
        yield path, value
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _children(item, (*path, index))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _children(item, (*path, str(key)))


@dataclass(frozen=True, slots=True)
class IstioObject(Generic[S]):
    """An object of one of Istio's kinds: what Heddle keeps of its metadata, and its typed spec.

    `created` is RFC 3339 as the API server writes it, or "" (a manifest in a file has none). Hashed once.
    """

    kind: str
    namespace: str
    name: str
    spec: S
    labels: Mapping[str, str] = EMPTY
    annotations: Mapping[str, str] = EMPTY
    generation: int = 0
    resource_version: str = ""
    uid: str = ""
    created: str = ""
    _hash: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", FrozenMap(self.labels))
        object.__setattr__(self, "annotations", FrozenMap(self.annotations))
        object.__setattr__(
            self, "_hash", hash((self.kind, self.namespace, self.name, self.resource_version, self.spec))
        )

    def __hash__(self) -> int:
        return self._hash

    @property
    def key(self) -> tuple[str, str, str]:
        """`(kind, namespace, name)`."""
        return (self.kind, self.namespace, self.name)

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


def age(thing: IstioObject[Any]) -> tuple[str, str, str]:
    """Sorts the oldest first; objects without a time (from files) by name, then namespace, as in Istio."""
    return (thing.created, thing.name, thing.namespace)

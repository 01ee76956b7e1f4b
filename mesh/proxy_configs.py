"""Which ProxyConfig objects are for a pod, and what they say, in the words of `meshConfig.defaultConfig`. Pure.

Each goes before the one named before it: the mesh's `defaultConfig`, the object without selector in the root namespace,
the one in the pod's own, the pod's annotation `proxy.istio.io/config`, the object that selects the pod. Of several the
oldest counts. They take effect when a pod is made.
Source: https://istio.io/latest/docs/reference/config/networking/proxy-config/
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from mesh.istio.base import IstioObject
from mesh.istio.proxy_config import ProxyConfig

Object = IstioObject[ProxyConfig]
KIND = "ProxyConfig"


@dataclass(frozen=True, slots=True)
class Chosen:
    """Those of one pod: `wide` below its annotation, the weakest first; `own`, which selects it, above."""

    wide: tuple[Object, ...] = ()
    own: tuple[Object, ...] = ()

    def __iter__(self) -> Iterator[Object]:
        yield from self.wide
        yield from self.own

    def versions(self) -> dict[str, str]:
        """`namespace/name` and a fingerprint of what each says: what an injected pod remembers of them."""
        return {f"{each.namespace}/{each.name}": fingerprint(each.spec) for each in self}


@dataclass(frozen=True)
class ProxyConfigs:
    """All of a mesh. `ousted`: those without effect, each with the older one that is for the same pods."""

    root_namespace: str = ""
    wide: Mapping[str, Object] = field(default_factory=dict)
    selecting: Mapping[str, tuple[Object, ...]] = field(default_factory=dict)
    ousted: tuple[tuple[Object, Object], ...] = ()

    def of(self, namespace: str, labels: Mapping[str, str]) -> Chosen:
        """Those for a pod of `namespace` with these labels."""
        places = dict.fromkeys((self.root_namespace, namespace))
        wide = tuple(self.wide[place] for place in places if place in self.wide)
        own = (each for each in self.selecting.get(namespace, ()) if _selector(each).items() <= labels.items())
        first = next(own, None)
        return Chosen(wide, () if first is None else (first,))


def proxy_configs(objects: Iterable[Object], root_namespace: str) -> ProxyConfigs:
    wide: dict[str, Object] = {}
    selecting: dict[str, tuple[Object, ...]] = {}
    ousted = []
    for each in sorted(objects, key=lambda one: (one.created, one.name, one.namespace)):
        if _selector(each):
            selecting[each.namespace] = (*selecting.get(each.namespace, ()), each)
        elif each.namespace in wide:
            ousted.append((each, wide[each.namespace]))
        else:
            wide[each.namespace] = each
    return ProxyConfigs(root_namespace, wide, selecting, tuple(ousted))


def as_default_config(spec: ProxyConfig) -> dict[str, Any]:
    """The same as fields of `meshConfig.defaultConfig`."""
    said: dict[str, Any] = {}
    if spec.concurrency is not None:
        said["concurrency"] = spec.concurrency
    if spec.environment_variables:
        said["proxyMetadata"] = dict(spec.environment_variables)
    if spec.image is not None and spec.image.image_type:
        said["image"] = {"imageType": spec.image.image_type}
    return said


def fingerprint(spec: ProxyConfig) -> str:
    """Equal for objects that say the same, whatever they are called and whenever they were written."""
    return hashlib.sha256(orjson.dumps(as_default_config(spec), option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]


def _selector(each: Object) -> Mapping[str, str]:
    return each.spec.selector.match_labels if each.spec.selector is not None else {}

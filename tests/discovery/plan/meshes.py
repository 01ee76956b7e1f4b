"""Random small meshes for property tests: few names, so that objects meet."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from mesh.objects import Key
from mesh.snapshot import Snapshot
from tests.support.snapshots import snapshot_of

Raw = dict[str, Any]

NAMESPACES = st.sampled_from(["a", "b", "istio-system"])
NAMES = st.sampled_from(["x", "y", "z"])
LABELS = st.dictionaries(st.sampled_from(["app", "version"]), st.sampled_from(["x", "y"]), max_size=2)
HOSTS = st.sampled_from(["x", "y", "missing", "x.a.svc.cluster.local", "y.b.svc.cluster.local", "x.a", "out.test"])
WIDE_HOSTS = st.one_of(HOSTS, st.sampled_from(["*.a.svc.cluster.local", "*.test", "*.svc.cluster.local"]))
PORTS = st.sampled_from([80, 81, 443])
CREATED = st.sampled_from(["", "2024-01-01T00:00:00Z", "2024-02-01T00:00:00Z"])
EXPORTS = st.sampled_from([[], ["."], ["*"], ["b"]])


def _optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Raw]:
    return st.fixed_dictionaries({}, optional=fields)


def _object(version: str, kind: str, spec: st.SearchStrategy[Raw]) -> st.SearchStrategy[Raw]:
    meta = st.fixed_dictionaries({"namespace": NAMESPACES, "name": NAMES, "creationTimestamp": CREATED})
    return st.builds(lambda m, s: {"apiVersion": version, "kind": kind, "metadata": m, "spec": s}, meta, spec)


_SERVICE_PORT = st.builds(
    lambda name, port, target: {"name": name, "port": port, "targetPort": target},
    st.sampled_from(["http", "grpc-x", "tcp", "https", "", "udp"]),
    PORTS,
    st.sampled_from([80, 8080, "web"]),
)
SERVICES = _object(
    "v1",
    "Service",
    st.fixed_dictionaries(
        {"ports": st.lists(_SERVICE_PORT, min_size=1, max_size=3, unique_by=lambda port: port["port"])},
        optional={
            "selector": LABELS,
            "clusterIP": st.sampled_from(["None", "10.96.1.1"]),
            "type": st.just("ClusterIP"),
        },
    ),
) | _object(
    "v1",
    "Service",
    st.fixed_dictionaries(
        {
            "type": st.just("ExternalName"),
            "externalName": st.sampled_from(["api.test", "x.a.svc.cluster.local"]),
            "ports": st.lists(_SERVICE_PORT, min_size=1, max_size=1),
        }
    ),
)
PODS = st.builds(
    lambda ns, name, labels, gateway, ready: {
        "kind": "Pod",
        "metadata": {
            "namespace": ns,
            "name": name,
            "labels": labels,
            "annotations": {"inject.istio.io/templates": "gateway"} if gateway else {},
        },
        "spec": {"containers": [{"name": "app", "ports": [{"name": "web", "containerPort": 8080}]}]},
        "status": {"conditions": [{"type": "Ready", "status": str(ready)}]},
    },
    NAMESPACES,
    st.sampled_from(["p", "q", "r"]),
    LABELS,
    st.booleans(),
    st.booleans(),
)
_DESTINATION = st.fixed_dictionaries(
    {"host": HOSTS},
    optional={
        "subset": st.sampled_from(["v1", "v2"]),
        "port": PORTS.map(lambda number: {"number": number}),
    },
)
_TARGETS = st.lists(
    st.fixed_dictionaries({"destination": _DESTINATION, "weight": st.integers(1, 9)}), min_size=1, max_size=3
)
_MATCH = _optional(
    uri=st.sampled_from([{"prefix": "/"}, {"exact": "/e"}, {"regex": "/r.*"}]),
    port=PORTS,
    sourceLabels=LABELS,
    gateways=st.lists(st.sampled_from(["mesh", "x", "a/x"]), max_size=2),
)
_HTTP = st.builds(
    lambda match, action: {"match": match, **action},
    st.lists(_MATCH, max_size=2),
    st.one_of(
        _TARGETS.map(lambda route: {"route": route}),
        st.just({"redirect": {"uri": "/new"}}),
        st.just({"directResponse": {"status": 404}}),
    ),
)
VIRTUAL_SERVICES = _object(
    "networking.istio.io/v1",
    "VirtualService",
    st.fixed_dictionaries(
        {
            "hosts": st.lists(WIDE_HOSTS, min_size=1, max_size=1),
            "http": st.lists(_HTTP, min_size=1, max_size=3),
        },
        optional={
            "tcp": st.lists(_TARGETS.map(lambda route: {"route": route}), max_size=1),
            "gateways": st.lists(st.sampled_from(["mesh", "x", "a/x", "b/y"]), min_size=1, max_size=2, unique=True),
            "exportTo": EXPORTS,
        },
    ),
)
_POLICY = st.sampled_from(
    [
        {"loadBalancer": {"simple": "RANDOM"}},
        {"loadBalancer": {"consistentHash": {"useSourceIp": True}}},
        {"tls": {"mode": "DISABLE"}},
        {"tls": {"mode": "ISTIO_MUTUAL"}},
        {"portLevelSettings": [{"port": {"number": 80}, "tls": {"mode": "DISABLE"}}]},
    ]
)
RULES = _object(
    "networking.istio.io/v1",
    "DestinationRule",
    st.fixed_dictionaries(
        {"host": WIDE_HOSTS},
        optional={
            "trafficPolicy": _POLICY,
            "subsets": st.lists(
                st.builds(
                    lambda name, labels, more: {"name": name, "labels": labels, **more},
                    st.sampled_from(["v1", "v2"]),
                    LABELS,
                    _optional(trafficPolicy=_POLICY),
                ),
                max_size=2,
                unique_by=lambda subset: subset["name"],
            ),
            "exportTo": EXPORTS,
        },
    ),
)
_SERVER = st.builds(
    lambda port, name, hosts, how: {
        "port": {"number": port, "name": name, "protocol": how[0]},
        "hosts": hosts,
        **how[1],
    },
    PORTS,
    st.sampled_from(["one", "two", "three", "four"]),
    st.lists(st.sampled_from(["*", "*.test", "out.test", "./out.test", "b/*"]), min_size=1, max_size=2, unique=True),
    st.sampled_from(
        [
            ("HTTP", {}),
            ("HTTP", {"tls": {"httpsRedirect": True}}),
            ("HTTPS", {"tls": {"mode": "SIMPLE", "credentialName": "c"}}),
            ("TLS", {"tls": {"mode": "PASSTHROUGH"}}),
            ("TCP", {}),
        ]
    ),
)
# One server each: what two of them may share within one object is validated before; across objects it is not.
GATEWAYS = _object(
    "networking.istio.io/v1",
    "Gateway",
    st.fixed_dictionaries(
        {"selector": LABELS, "servers": st.lists(_SERVER, min_size=1, max_size=1)},
    ),
)
_MODE = st.sampled_from(["UNSET", "DISABLE", "PERMISSIVE", "STRICT"]).map(lambda mode: {"mode": mode})
POLICIES = _object("security.istio.io/v1", "PeerAuthentication", _optional(mtls=_MODE)) | _object(
    "security.istio.io/v1",
    "PeerAuthentication",
    st.fixed_dictionaries(
        {
            "selector": st.just({"matchLabels": {"app": "x"}}),
            "portLevelMtls": st.dictionaries(st.sampled_from(["80", "8080"]), _MODE, max_size=2),
        }
    ),
)


def _unique(documents: list[Raw]) -> list[Raw]:
    """The last of each kind and name, as an API server would have it."""
    found = {(raw["kind"], raw["metadata"]["namespace"], raw["metadata"]["name"]): raw for raw in documents}
    return list(found.values())


OBJECTS = st.one_of(SERVICES, PODS, VIRTUAL_SERVICES, RULES, GATEWAYS, POLICIES)
DOCUMENTS = st.builds(
    lambda pods, services, rest: _unique([*pods, *services, *rest]),
    st.lists(PODS, min_size=1, max_size=4),
    st.lists(SERVICES, min_size=1, max_size=4),
    st.lists(st.one_of(VIRTUAL_SERVICES, RULES, GATEWAYS, POLICIES), max_size=8),
)
MESHES: st.SearchStrategy[Snapshot] = DOCUMENTS.map(snapshot_of)


def shuffled(snapshot: Snapshot, random: Any) -> Snapshot:
    """The same objects in mappings of another order."""

    def mix(mapping: Any) -> Any:
        items = list(mapping.items())
        random.shuffle(items)
        return dict(items)

    return snapshot.replacing(
        pods=mix(snapshot.pods),
        services=mix(snapshot.services),
        slices=mix(snapshot.slices),
        istio={kind: mix(objects) for kind, objects in snapshot.istio.items()},
    )


def merged(old: Snapshot, new: Snapshot) -> Snapshot:
    """`new`, with the objects of `old` wherever `new` has one of that key: a change that leaves most as it was."""

    def take(before: dict[Key, Any], after: dict[Key, Any]) -> dict[Key, Any]:
        return {key: before.get(key, value) for key, value in after.items()}

    return new.replacing(
        services=take(dict(old.services), dict(new.services)),
        istio={kind: take(dict(old.of(kind)), dict(objects)) for kind, objects in new.istio.items()},
    )

"""Some resources as a static bootstrap, since `--mode validate` does not look into subscriptions. Pure.

Routes stand in a listener of their own, subscriptions of listeners are answered with nothing, secrets stay
subscriptions (nobody is asked for them), and TLS by files is left out: the files are the proxy's, not ours. Resources
of different proxies stand side by side: names and addresses are made different, nothing is opened.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from discovery.envoy.http import Side, connection_manager
from discovery.preflight.trials import Element, Json
from mesh.wire import ResourceType
from mesh.xds import AGENT_CLUSTER

_RDS = "rds"
_SOCKETS = ("transport_socket", "transport_socket_matches")


def bootstrap(elements: Iterable[Element]) -> Json:
    """What Envoy is started with."""
    clusters, listeners, hosts = list[Json](), list[Json](), dict[str, list[Json]]()
    for each in elements:
        if each.kind is ResourceType.CLUSTERS:
            clusters.append({**_cluster(each.config), "name": f"{each.name}#{len(clusters)}"})
        elif each.kind is ResourceType.LISTENERS:
            listeners.append(_listener(each.config))
        else:
            hosts.setdefault(each.name.partition("/")[0], []).append(each.config)
    listeners += [_of_routes(name, those) for name, those in sorted(hosts.items())]
    nobody = {"name": AGENT_CLUSTER, "type": "STATIC", "connect_timeout": "1s"}
    return {
        "node": {"id": "preflight", "cluster": "preflight"},
        "static_resources": {
            "clusters": [nobody, *map(_without_type, clusters)],
            "listeners": [_placed(_without_type(each), number) for number, each in enumerate(listeners)],
        },
    }


def _placed(listener: Json, number: int) -> Json:
    """The listener at an address that no other one has."""
    socket = {"address": f"127.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", "port_value": 15000}
    address = {"address": {"socket_address": socket}, "name": f"{listener['name']}#{number}"}
    return {key: value for key, value in listener.items() if key != "additional_addresses"} | address


def _cluster(config: Json) -> Json:
    config = _without_files(config)
    if config.get("type") == "EDS":
        config = {key: value for key, value in config.items() if key != "eds_cluster_config"}
        config |= {"type": "STATIC", "load_assignment": {"cluster_name": config["name"]}}
    return config


def _listener(config: Json) -> Json:
    answered: Json = _answered(_without_files(config))
    return answered


def _answered(value: Any) -> Any:
    """The same with an empty table where one is subscribed to."""
    if isinstance(value, list):
        return [_answered(each) for each in value]
    if not isinstance(value, dict):
        return value
    found = {key: _answered(each) for key, each in value.items() if key != _RDS}
    if isinstance(value.get(_RDS), dict) and "route_config_name" in value[_RDS]:
        found["route_config"] = {"name": value[_RDS]["route_config_name"], "virtual_hosts": []}
    return found


def _of_routes(table: str, hosts: list[Json]) -> Json:
    """A listener with these virtual hosts. Names and domains are made different: each was a table's only one."""
    manager: Json = connection_manager(Side.GATEWAY, "preflight", table, {})
    config = {key: value for key, value in manager["typed_config"].items() if key != _RDS}
    config["route_config"] = {
        "name": table,
        "validate_clusters": False,
        "max_direct_response_body_size_bytes": 1 << 20,
        "virtual_hosts": [
            {**host, "name": f"{host['name']}-{nth}", "domains": [f"host-{nth}.invalid"]}
            for nth, host in enumerate(hosts)
        ],
    }
    return {"name": f"routes of {table}", "filter_chains": [{"filters": [{**manager, "typed_config": config}]}]}


def _without_files(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_files(each) for each in value]
    if not isinstance(value, Mapping):
        return value
    return {
        key: _without_files(each)
        for key, each in value.items()
        if not (key in _SOCKETS and '"filename"' in json.dumps(each))
    }


def _without_type(value: Json) -> Json:
    return {key: each for key, each in value.items() if key != "@type"}

"""What the container tells the agent, and what is said when it is wrong."""

from __future__ import annotations

import argparse
import re
import tomllib
from pathlib import Path

import pytest

from agent import VERSION
from agent.run import component_levels
from agent.settings import AppMetrics, add_flags, read_settings
from mesh.errors import InvalidInput

REQUIRED = {"POD_NAME": "p", "POD_NAMESPACE": "ns", "POD_UID": "u", "INSTANCE_IP": "10.0.0.1"}


def test_defaults_are_istios_paths_and_the_control_planes_names() -> None:
    settings = read_settings(REQUIRED, {})
    assert str(settings.identity) == "spiffe://cluster.local/ns/ns/sa/default"
    assert settings.ca == ("heddle-ca.istio-system.svc", 15013)
    assert settings.discovery == ("heddle-discovery.istio-system.svc", 15012)
    assert settings.token_file == "/var/run/secrets/tokens/istio-token"
    assert settings.socket == "/etc/istio/proxy/agent.sock"
    assert (settings.admin_port, settings.health_port, settings.proxy.status_port) == (15000, 15021, 15020)
    assert (settings.proxy.drain, settings.grace_period, settings.certificate_ttl) == (5.0, 30.0, None)


def test_another_namespace_of_the_control_plane() -> None:
    settings = read_settings(REQUIRED | {"CONTROL_NAMESPACE": "mesh", "CA_ADDR": "ca.example:1"}, {})
    assert settings.control_namespace == "mesh"
    assert (settings.ca, settings.discovery) == (("ca.example", 1), ("heddle-discovery.mesh.svc", 15012))


def test_istios_proxy_config_is_read_and_other_variables_are_ignored() -> None:
    config = '{"concurrency":0,"terminationDrainDuration":"1m30s","drainDuration":"10s","statusPort":16020,"x":1}'
    settings = read_settings(REQUIRED | {"PROXY_CONFIG": config, "ISTIO_META_X": "y", "CERTIFICATE_TTL": "24h"}, {})
    assert settings.proxy.concurrency == 0
    assert (settings.proxy.drain, settings.proxy.listener_drain) == (90.0, 10.0)
    assert settings.proxy.status_port == 16020
    assert settings.certificate_ttl == 86400.0


def test_what_annotations_lead_to() -> None:
    settings = read_settings(
        REQUIRED
        | {
            "INSTANCE_IPS": "10.0.0.1, fd00::1",
            "PROXY_CONFIG": '{"proxyAdminPort":15999,"runtimeValues":{"a":"1"}}',
            "ISTIO_PROMETHEUS_ANNOTATIONS": '{"scrape":"true","path":"m","scheme":"https"}',
        },
        {},
    )
    assert settings.instance_ips == ("10.0.0.1", "fd00::1")
    assert (settings.admin_port, settings.proxy.runtime) == (15999, {"a": "1"})
    assert settings.scrape == AppMetrics(80, "/m", True)
    assert read_settings(REQUIRED, {}).instance_ips == ("10.0.0.1",)
    assert component_levels("") == "config:warning,rds:debug"
    assert component_levels("misc:error,config:off,rds:off") == "misc:error,config:warning,rds:debug"
    assert component_levels("config:trace") == "config:trace,rds:debug"


def test_the_key_is_asked_for_in_istios_words() -> None:
    assert read_settings(REQUIRED, {}).key_kind == "P-256"
    assert read_settings(REQUIRED | {"WORKLOAD_RSA_KEY_SIZE": "3072"}, {}).key_kind == "RSA-3072"
    words = {"ECC_SIGNATURE_ALGORITHM": "ECDSA", "ECC_CURVE": "P384", "WORKLOAD_RSA_KEY_SIZE": "3072"}
    assert read_settings(REQUIRED | words, {}).key_kind == "P-384"


def test_flags_win_over_the_environment() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    flags = vars(parser.parse_args(["--instance-ip", "fd00::1", "--ca", "[::1]:99"]))
    settings = read_settings(REQUIRED, flags)
    assert settings.instance_ip == "fd00::1"
    assert settings.ca == ("::1", 99)


@pytest.mark.parametrize("missing", sorted(REQUIRED))
def test_a_missing_variable_is_named_with_its_flag(missing: str) -> None:
    with pytest.raises(InvalidInput) as error:
        read_settings({k: v for k, v in REQUIRED.items() if k != missing}, {})
    assert error.value.field == missing
    assert f"--{missing.lower().replace('_', '-')}" in str(error.value)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("INSTANCE_IP", "localhost", "not an IP address"),
        ("CA_ADDR", "heddle-ca", "not host:port"),
        ("DISCOVERY_ADDR", "host:70000", "not a port"),
        ("PROXY_CONFIG", "{", "not JSON"),
        ("PROXY_CONFIG", "[]", "JSON object"),
        ("PROXY_CONFIG", '{"concurrency":-1}', "whole number"),
        ("PROXY_CONFIG", '{"terminationDrainDuration":"5"}', "no unit"),
        ("PROXY_CONFIG", '{"terminationDrainDuration":5}', "duration"),
        ("TERMINATION_GRACE_PERIOD_SECONDS", "x", "duration"),
        ("LOG_LEVEL", "loud", "none of"),
        ("POD_NAMESPACE", "Not_A_Name", "namespace"),
        ("INSTANCE_IPS", "10.0.0.1,pod", "not an IP address"),
        ("PROXY_CONFIG", '{"runtimeValues":[1]}', "JSON object"),
        ("PROXY_CONFIG", '{"proxyAdminPort":0}', "not a port"),
        ("ISTIO_PROMETHEUS_ANNOTATIONS", '{"port":"http"}', "not a port"),
        ("ISTIO_PROMETHEUS_ANNOTATIONS", '{"port":"15020"}', "the agent's own port"),
        ("STATS_HISTOGRAM_BUCKETS", "[1]", "JSON object"),
        ("SOCKET_DIR", "/" + "x" * 120, "too long"),
    ],
)
def test_a_wrong_value_is_named(variable: str, value: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(says)):
        read_settings(REQUIRED | {variable: value}, {})


def test_the_version_is_the_distributions() -> None:
    assert tomllib.loads(Path("pyproject.toml").read_text())["project"]["version"] == VERSION

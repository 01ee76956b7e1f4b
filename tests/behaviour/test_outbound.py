"""Where connections that leave a pod go: by protocol, by kind of service, and to addresses that no service has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.behaviour.world import CALLER, Answer, World, echo, eventually, thing

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
Put = Callable[..., Any]


def mesh_config(mode: str) -> Answer:
    settings = {"outboundTrafficPolicy": {"mode": mode}, "enableAutoMtls": True}
    return thing("ConfigMap", "istio", namespace="istio-system", data={"mesh": yaml.safe_dump(settings)})


def service(name: str, port: dict[str, Any], **spec: Any) -> Answer:
    return thing("Service", name, {"selector": {"app": "echo"}, "ports": [port], **spec})


def is_http(answer: Answer) -> bool:
    """Whether the client's sidecar took it as HTTP; the server has none here."""
    return "x-request-id" in answer["body"]["headers"]


@pytest.mark.parametrize(
    ("port", "http"),
    [
        pytest.param({"name": "http"}, True, id="name http"),
        pytest.param({"name": "http-web"}, True, id="name http with a suffix"),
        pytest.param({"name": "other", "appProtocol": "http"}, True, id="appProtocol http"),
        pytest.param({"name": "tcp-web", "appProtocol": "http"}, True, id="appProtocol before the name"),
        pytest.param({"name": "tcp-web"}, False, id="name tcp"),
        pytest.param({"name": "web"}, False, id="a name that says nothing"),
    ],
)
def test_the_protocol_comes_from_the_port(world: World, case: Put, port: dict[str, Any], http: bool) -> None:
    port = {"port": 7000, "targetPort": 8081, **port}
    case(thing("Service", "named", {"selector": {"app": "old"}, "ports": [port]}, "plain"))
    answer = world.get("http://named.plain:7000/")
    assert answer["status"] == 200
    assert is_http(answer) == http


def test_a_server_that_speaks_first(world: World) -> None:
    for host in ("lines", "lines.mesh", "lines.mesh.svc.cluster.local"):
        answer = world.lines(host, 9000)
        assert answer == {"greeting": "hello from lines", "body": "a line"}


def test_a_server_that_speaks_first_is_reached_from_outside(world: World) -> None:
    assert world.lines("lines.mesh", 9000, CALLER) == {"greeting": "hello from lines", "body": "a line"}


def test_a_headless_service_over_http_and_tcp(world: World, case: Put) -> None:
    assert world.get("http://headless.mesh:8080/")["status"] == 200
    case(
        thing(
            "Service",
            "bare",
            {"clusterIP": "None", "selector": {"app": "lines"}, "ports": [{"name": "tcp", "port": 9000}]},
        )
    )
    assert world.lines("bare", 9000)["body"] == "a line"


def test_all_endpoints_of_a_headless_service_are_called_with_mutual_tls(world: World) -> None:
    answers = [
        world.get(f"http://{pod['ip']}:8080/", headers={"host": "headless"}) for pod in world.pods("mesh", "echo")
    ]
    assert {answer["status"] for answer in answers} == {200}
    assert {answer["body"]["version"] for answer in answers} == {"v1", "v2"}
    assert all("x-forwarded-client-cert" in answer["body"]["headers"] for answer in answers)


def test_an_address_that_no_service_has(world: World, case: Put) -> None:
    """Let through under ALLOW_ANY, refused under REGISTRY_ONLY, and let through again: all without a restart."""
    direct = f"http://{world.pods('plain', 'old')[0]['ip']}:8081/"
    unknown_host = {"url": "http://old.plain/", "headers": {"host": "nobody.example"}}
    assert world.get(direct)["status"] == 200
    assert world.ask("mesh/client", unknown_host)[0]["status"] == 200
    before = {pod["name"]: pod["restarts"] for pod in world.pods("mesh")}
    case(mesh_config("REGISTRY_ONLY"))
    refused = world.get(direct)
    assert "RemoteDisconnected" in refused.get("error", "") or "Reset" in refused.get("error", ""), refused
    assert world.ask("mesh/client", unknown_host)[0]["status"] == 502
    assert world.get("http://old.plain/")["status"] == 200
    assert world.get("http://echo/")["status"] == 200
    case(mesh_config("ALLOW_ANY"))
    assert world.get(direct)["status"] == 200
    assert {pod["name"]: pod["restarts"] for pod in world.pods("mesh")} == before


def test_bad_settings_leave_the_last_good_ones_in_force(world: World, case: Put) -> None:
    direct = f"http://{world.pods('plain', 'old')[0]['ip']}:8081/"
    case(mesh_config("REGISTRY_ONLY"))
    case(mesh_config("ALOW_ANY"))
    assert "ALOW_ANY" in world.problems()
    with world.explained.outside("what is in force is what the objects were before"):
        assert "error" in world.get(direct)


def test_a_service_without_endpoints_answers_503_and_is_named(world: World, case: Put) -> None:
    case(service("empty", {"name": "http", "port": 80}, selector={"app": "nobody"}))
    answer = world.get("http://empty/")
    assert answer["status"] == 503
    assert "no healthy upstream" in answer["body"]
    assert "mesh/empty" in world.problems()
    assert "app=nobody" in world.problems()
    assert world.get("http://echo/")["status"] == 200


def test_two_services_with_other_protocols_on_one_port_of_their_pods(world: World, case: Put) -> None:
    case(service("second", {"name": "tcp", "port": 8000, "targetPort": 8080}))
    assert "second" in world.problems()
    assert "8080" in world.problems()
    assert world.get("http://echo/")["status"] == 200
    assert world.get("http://second:8000/")["status"] == 200


def test_an_http_and_a_tcp_service_on_one_port_number(world: World, case: Put) -> None:
    case(
        service("web", {"name": "http", "port": 9000, "targetPort": 8081}),
    )
    assert world.get("http://web:9000/")["status"] == 200
    assert world.lines("lines", 9000)["body"] == "a line"


def test_the_name_of_another_service(world: World, case: Put) -> None:
    case(
        thing(
            "Service",
            "alias",
            {
                "type": "ExternalName",
                "externalName": "echo.mesh.svc.cluster.local",
                "ports": [{"name": "http", "port": 80}],
            },
        )
    )
    answer = world.get("http://alias/")
    assert answer["status"] == 200
    assert answer["body"]["version"] in ("v1", "v2")


def versions(world: World) -> set[str]:
    """Who answers; each request must succeed."""
    answers = world.many("http://echo/", 30)
    assert {answer["status"] for answer in answers} == {200}
    return {answer["body"]["version"] for answer in answers}


def test_endpoints_come_and_go_without_a_failed_request(world: World, case: Put) -> None:
    case(echo("v3", {"app": "echo", "version": "v3"}))
    eventually(lambda: versions(world) == {"v1", "v2", "v3"}, "the new pod gets no requests")
    case()
    eventually(lambda: versions(world) == {"v1", "v2"}, "the pod that went still gets requests")
    assert not world.pods("mesh", "v3")


def test_names_are_resolved_by_the_pods_own_rules(world: World) -> None:
    for host in ("echo", "echo.mesh", "echo.mesh.svc", "echo.mesh.svc.cluster.local"):
        assert world.get(f"http://{host}/")["status"] == 200
    assert "gaierror" in world.get("http://echo/", CALLER)["error"]
    eventually(lambda: world.get("http://old/", CALLER).get("status") == 200, "old is not found in its own namespace")

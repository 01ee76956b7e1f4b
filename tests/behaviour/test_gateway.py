"""The ingress gateway: routes by host, TLS that it ends, and certificates that are missing, broken or replaced."""

from __future__ import annotations

import base64
import json
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509

from discovery.explain.model import Request
from tests.behaviour.world import Answer, World, echo, eventually, thing
from tests.support.certificates import Authority, Certificate

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
Put = Callable[..., Any]
SECURE = "secure.example"


def gateway(*servers: Answer) -> Answer:
    return thing("Gateway", "case", {"selector": {"istio": "ingressgateway"}, "servers": list(servers)})


def http(*hosts: str, **more: Any) -> Answer:
    return {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": list(hosts), **more}


def https(host: str, credential: str, name: str = "https", **tls: Any) -> Answer:
    settings = {"mode": "SIMPLE", "credentialName": credential, **tls}
    return {"port": {"number": 443, "name": name, "protocol": "HTTPS"}, "hosts": [host], "tls": settings}


def route(*hosts: str, name: str = "case", to: str = "echo.mesh.svc.cluster.local", **spec: Any) -> Answer:
    routes = [{"route": [{"destination": {"host": to, "port": {"number": 80}}}]}]
    return thing("VirtualService", name, {"hosts": list(hosts), "gateways": ["case"], "http": routes, **spec})


def secret(name: str, certificate: Certificate, **more: str) -> Answer:
    data = {"tls.crt": certificate.chain_pem, "tls.key": certificate.key_pem, **more}
    encoded = {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}
    return thing("Secret", name, type="kubernetes.io/tls", data=encoded)


def exchange(world: World, name: str, context: ssl.SSLContext, path: str = "/") -> tuple[str, Answer, int]:
    """Over TLS to the gateway, verified for `name`: the TLS version, the JSON answered, the certificate's serial."""

    def ask() -> Answer:
        try:
            return {"status": 200, "found": (found := _exchange(world, name, context, path)), "body": found[1]}
        except (OSError, AssertionError, LookupError) as error:
            return {"error": error}

    answer = ask()
    if not isinstance(answer.get("error"), ssl.SSLCertVerificationError):  # whom a client trusts is its own business
        world.explained.compare(Request(world.gateway, name, 443, path, tls=True), {}, [answer], lambda: [ask()])
    if "error" in answer:
        raise answer["error"]
    found: tuple[str, Answer, int] = answer["found"]
    return found


def _exchange(world: World, name: str, context: ssl.SSLContext, path: str) -> tuple[str, Answer, int]:
    with (
        socket.create_connection(("127.0.0.1", world.mesh.https_port), 15) as plain,
        context.wrap_socket(plain, server_hostname=name) as stream,
    ):
        certificate, version = stream.getpeercert() or {}, str(stream.version())
        stream.sendall(f"GET {path} HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: stream.recv(65536), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b" 200 " in head.splitlines()[0], head
        return (
            version,
            json.loads(body[body.index(b"{") : body.rindex(b"}") + 1]),
            int(str(certificate["serialNumber"]), 16),
        )


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=authority.root_pem)


def test_requests_are_told_apart_by_host(world: World, case: Put) -> None:
    case(
        gateway(http("a.example", "*.b.example")),
        route("a.example", name="a"),
        route("*.b.example", name="b", to="old.plain.svc.cluster.local"),
    )
    status, answer = world.enter("/", "a.example")
    assert (status, answer["pod"][:4]) == (200, "echo")
    assert "sa/gateway" in answer["headers"]["x-forwarded-client-cert"]
    status, answer = world.enter("/", "x.b.example")
    assert (status, answer["pod"][:3]) == (200, "old")
    assert world.enter("/", "c.example")[0] == 404


def test_routes_count_only_for_the_gateways_that_they_name(world: World, case: Put) -> None:
    answered = {"http": [{"directResponse": {"status": 299}}]}
    case(
        gateway(http("*")),
        route("echo.mesh.svc.cluster.local", gateways=["case"], **answered),
        route("only.example", name="mesh-only", gateways=["mesh"], **answered),
    )
    assert world.enter("/", "echo.mesh.svc.cluster.local")[0] == 299
    assert world.get("http://echo.mesh/")["status"] == 200
    assert world.enter("/", "only.example")[0] == 404


def test_tls_ends_at_the_gateway(world: World, case: Put) -> None:
    authority = Authority()
    certificate = authority.issue(dns=SECURE)
    case(secret("web", certificate), gateway(https(SECURE, "web")), route(SECURE))
    version, answer, _ = exchange(world, SECURE, trusting(authority), "/path")
    assert version in ("TLSv1.2", "TLSv1.3")
    assert answer["path"] == "/path"
    assert answer["headers"]["x-forwarded-proto"] == "https"
    with pytest.raises(ssl.SSLCertVerificationError):
        exchange(world, SECURE, trusting(Authority()))


def test_certificates_are_chosen_by_name(world: World, case: Put) -> None:
    authority = Authority()
    first, second = (authority.issue(dns=name) for name in (SECURE, "other.example"))
    case(
        secret("first", first),
        secret("second", second),
        gateway(https(SECURE, "first", "https-a"), https("other.example", "second", "https-b")),
        route(SECURE, "other.example"),
    )
    serials = {exchange(world, name, trusting(authority))[2] for name in (SECURE, "other.example")}
    assert len(serials) == 2
    with pytest.raises((ssl.SSLError, OSError)):
        exchange(world, "third.example", trusting(authority))


def test_a_missing_secret_is_named_and_the_rest_goes_on(world: World, case: Put) -> None:
    authority = Authority()
    documents = (
        gateway(http("plain.example"), https(SECURE, "late", "https-a"), https("fine.example", "fine", "https-b")),
        route("plain.example", SECURE, "fine.example"),
        secret("fine", authority.issue(dns="fine.example")),
    )
    case(*documents)
    assert "mesh/late" in world.problems()
    assert world.enter("/", "plain.example")[0] == 200
    exchange(world, "fine.example", trusting(authority))
    with pytest.raises((ssl.SSLError, OSError)):
        exchange(world, SECURE, trusting(authority))
    case(*documents, secret("late", authority.issue(dns=SECURE)))
    eventually(lambda: "mesh/late" not in world.problems(), "the secret is not found")
    exchange(world, SECURE, trusting(authority))


def test_a_replaced_secret_is_served_without_a_restart(world: World, case: Put) -> None:
    authority = Authority()
    others = (gateway(https(SECURE, "web")), route(SECURE))
    case(secret("web", authority.issue(dns=SECURE)), *others)
    context = trusting(authority)
    before = exchange(world, SECURE, context)[2]
    restarts = [pod["restarts"] for pod in world.pods("mesh", "gateway")]
    case(secret("web", authority.issue(dns=SECURE)), *others)
    eventually(lambda: exchange(world, SECURE, context)[2] != before, "the new certificate is not served")
    assert [pod["restarts"] for pod in world.pods("mesh", "gateway")] == restarts


def test_a_broken_secret_is_named_and_not_served(world: World, case: Put) -> None:
    authority = Authority()
    broken = Certificate("not a certificate", "not a key")
    case(secret("web", broken), gateway(https(SECURE, "web"), http("plain.example")), route(SECURE, "plain.example"))
    assert "web" in world.problems()
    assert world.enter("/", "plain.example")[0] == 200
    with pytest.raises((ssl.SSLError, OSError)):
        exchange(world, SECURE, trusting(authority))


def test_tls_is_passed_through_to_the_app_that_the_name_chooses(world: World, case: Put) -> None:
    """The certificate that the client sees is the app's own: the gateway reads the name and ends nothing."""
    authority = Authority()
    certificate = authority.issue(dns=SECURE)
    serving = {
        "args": ["8443"],
        "env": [{"name": "CERTIFICATES", "value": "/certificates"}],
        "ports": [{"containerPort": 8443}],
        "readinessProbe": {"tcpSocket": {"port": 8443}, "periodSeconds": 1},
        "volumeMounts": [{"name": "certificates", "mountPath": "/certificates"}],
    }
    ports = [{"name": "tls-web", "port": 443, "targetPort": 8443}]
    case(
        secret("web", certificate),
        echo(
            "own-tls",
            {"app": "own-tls"},
            container=serving,
            volumes=[{"name": "certificates", "secret": {"secretName": "web"}}],
        ),
        thing("Service", "own-tls", {"selector": {"app": "own-tls"}, "ports": ports}),
        gateway({**https(SECURE, ""), "tls": {"mode": "PASSTHROUGH"}}),
        thing(
            "VirtualService",
            "case",
            {
                "hosts": [SECURE],
                "gateways": ["case"],
                "tcp": [{"route": [{"destination": {"host": "own-tls", "port": {"number": 443}}}]}],
            },
        ),
    )
    version, answer, serial = exchange(world, SECURE, trusting(authority), "/path")
    assert (version, answer["pod"], answer["path"]) == ("TLSv1.3", "own-tls", "/path")
    assert serial == x509.load_pem_x509_certificate(certificate.chain_pem.encode()).serial_number
    with pytest.raises((ssl.SSLError, OSError)):
        exchange(world, "other.example", trusting(authority))


def test_plain_http_is_sent_to_https(world: World, case: Put) -> None:
    case(gateway(http(SECURE, tls={"httpsRedirect": True})), route(SECURE))
    with socket.create_connection(("127.0.0.1", world.mesh.port), 15) as stream:
        stream.sendall(f"GET /path HTTP/1.1\r\nhost: {SECURE}\r\nconnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: stream.recv(65536), b"")).decode().lower()
    assert " 301 " in answer.splitlines()[0]
    assert f"location: https://{SECURE}/path" in answer


def test_a_client_certificate_is_asked_for(world: World, case: Put, tmp_path: Any) -> None:
    servers, clients = Authority("servers"), Authority("clients")
    certificate = servers.issue(dns=SECURE)
    case(
        secret("web", certificate, **{"ca.crt": clients.root_pem}),
        gateway(https(SECURE, "web", mode="MUTUAL")),
        route(SECURE),
    )
    no_certificate = world.explained.outside("the client has no certificate")
    with no_certificate, pytest.raises((ssl.SSLError, OSError, AssertionError, IndexError)):
        exchange(world, SECURE, trusting(servers))
    own = clients.issue(dns="client.example")
    (tmp_path / "own.pem").write_text(own.chain_pem + own.key_pem)
    context = trusting(servers)
    context.load_cert_chain(tmp_path / "own.pem")
    exchange(world, SECURE, context)


def test_a_gateway_of_other_pods_opens_nothing_here(world: World, case: Put) -> None:
    other = gateway(http("*"))
    other["spec"]["selector"] = {"istio": "another"}
    case(other, route("a.example"))
    with pytest.raises(OSError, match=r"."):
        world.enter("/", "a.example")

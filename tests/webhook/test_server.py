"""The real process over HTTPS, with an API server behind it."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator

import pytest

from tests.webhook.harness import NAME, REVIEWS, ApiServer, WebhookProcess, namespace, review_of


@pytest.fixture(scope="module")
def api() -> Iterator[ApiServer]:
    server = ApiServer([namespace("default", istio_injection="enabled"), namespace("plain")])
    yield server
    server.close()


@pytest.fixture(scope="module")
def webhook(api: ApiServer) -> Iterator[WebhookProcess]:
    process = WebhookProcess(api.url).ready()
    yield process
    process.close()


def post(webhook: WebhookProcess, body: bytes, path: str = "/inject", **headers: str) -> tuple[int, dict[str, object]]:
    with webhook.connect() as connection:
        sent = {"Content_Type": "application/json", "Content_Length": len(body), "Connection": "close", **headers}
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in sent.items())
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: {NAME}\r\n{head}\r\n".encode() + body)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, json.loads(answer.read())


def admit(webhook: WebhookProcess, **request: object) -> dict[str, object]:
    status, answer = post(webhook, json.dumps(review_of(REVIEWS, **request)).encode())
    assert status == 200, answer
    response = answer["response"]
    assert isinstance(response, dict)
    return response


def until(condition: object, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.02)


def test_injection(webhook: WebhookProcess) -> None:
    assert "patch" in admit(webhook)
    assert "patch" not in admit(webhook, namespace="plain")


def test_labels_and_settings_are_followed(webhook: WebhookProcess, api: ApiServer) -> None:
    api.change("namespaces", namespace("plain", istio_injection="enabled"))
    until(lambda: "patch" in admit(webhook, namespace="plain"))
    api.change("namespaces", namespace("plain"))
    until(lambda: "patch" not in admit(webhook, namespace="plain"))
    before = admit(webhook)["patch"]
    api.settings("defaultConfig: {concurrency: 7}")
    until(lambda: admit(webhook)["patch"] != before)
    good = admit(webhook)["patch"]
    api.settings("defaultConfig: {concurrency: seven}")
    until(lambda: "not taken over" in webhook.log.read_text())
    assert admit(webhook)["patch"] == good


def test_a_namespace_that_was_made_a_moment_ago(webhook: WebhookProcess, api: ApiServer) -> None:
    api.silent["fresh"] = namespace("fresh", istio_injection="enabled")
    assert "patch" in admit(webhook, namespace="fresh")
    status, answer = post(webhook, json.dumps(review_of(REVIEWS, namespace="unheard-of")).encode())
    assert (status, answer["error"]["code"]) == (503, "unavailable")  # type: ignore[index]


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"not json", {}, 400),
        (b"{}", {}, 400),
        (b"{}", {"Content_Type": "text/plain"}, 415),
        (json.dumps(review_of(REVIEWS, namespace="../pods")).encode(), {}, 200),
        (b" " * ((3 << 20) + 1), {}, 413),
    ],
)
def test_bad_requests(webhook: WebhookProcess, body: bytes, headers: dict[str, str], status: int) -> None:
    assert post(webhook, body, **headers)[0] == status
    assert "patch" in admit(webhook)


def test_nesting_without_end_is_an_answer(webhook: WebhookProcess) -> None:
    deep: object = {}
    for _ in range(700):
        deep = {"x": deep}
    container = {"name": "web", "image": "x", "livenessProbe": {"httpGet": {"port": 80, "path": deep}}}
    pod = {**REVIEWS, "spec": {"containers": [container]}}
    status, answer = post(webhook, json.dumps(review_of(pod)).encode())
    assert status in (200, 400), answer


@pytest.mark.parametrize(("path", "status"), [("/", 404), ("/inject/x", 404), ("/healthz", 405)])
def test_other_paths(webhook: WebhookProcess, path: str, status: int) -> None:
    code, answer = post(webhook, b"{}", path)
    assert code == status
    assert isinstance(answer["error"], dict)


def test_health_and_metrics_in_plain_http_and_over_https(webhook: WebhookProcess) -> None:
    def plain(path: str) -> str:
        return webhook.health(path)[1]

    assert plain("/healthz") == plain("/readyz") == "ok\n"
    before = metrics(plain("/metrics"))
    admit(webhook)
    admit(webhook, operation="DELETE")
    post(webhook, b"not json")
    after = metrics(plain("/metrics"))
    rise = {name: after[name] - before[name] for name in before}
    assert rise == {
        "sidecar_injection_requests_total": 3,
        "sidecar_injection_success_total": 1,
        "sidecar_injection_skip_total": 1,
        "sidecar_injection_failure_total": 1,
    }
    connection = http.client.HTTPSConnection("127.0.0.1", webhook.port, timeout=60, context=unnamed(webhook))
    connection.request("GET", "/readyz")
    assert connection.getresponse().status == 200
    connection.close()


def metrics(text: str) -> dict[str, float]:
    lines = (line.split() for line in text.splitlines() if line.startswith("sidecar_injection_"))
    return {line[0]: float(line[1]) for line in lines if line[0].endswith("_total")}


def unnamed(webhook: WebhookProcess) -> ssl.SSLContext:
    context = webhook.context()
    context.check_hostname = False
    return context


def test_tls_from_1_2_on(webhook: WebhookProcess) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = webhook.context()
        context.minimum_version = context.maximum_version = version
        with webhook.connect(context) as connection:
            assert connection.version() == version.name.replace("v1_", "v1.")
    old = webhook.context()
    old.set_ciphers("DEFAULT@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, OSError)):
        webhook.connect(old)


def test_silent_connections_stop_nobody(webhook: WebhookProcess) -> None:
    silent = [webhook.connect() for _ in range(20)]
    plain = [socket.create_connection(("127.0.0.1", webhook.port)) for _ in range(40)]
    started = time.monotonic()
    assert "patch" in admit(webhook)
    assert time.monotonic() - started < 4  # less than any of them would hold a thread for
    for connection in (*silent, *plain):
        connection.close()


def test_half_requests_and_handshakes_stop_nobody(webhook: WebhookProcess) -> None:
    """Far more of either than there are threads of any kind."""
    head = f"POST /inject HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: application/json\r\n".encode()
    halves = (b"POST /inj", head, head + b"Content-Length: 1000\r\n\r\n{")
    halves = (*halves, head + b"Transfer-Encoding: chunked\r\n\r\n3e8\r\n{")
    with contextlib.ExitStack() as held:
        for half in halves * 50:
            held.enter_context(webhook.connect()).sendall(half)
        for _ in range(200):
            held.enter_context(socket.create_connection(("127.0.0.1", webhook.port))).sendall(b"\x16\x03\x01")
        assert "patch" in admit(webhook)


def test_many_requests_on_one_connection(webhook: WebhookProcess) -> None:
    connection = http.client.HTTPSConnection("127.0.0.1", webhook.port, timeout=60, context=unnamed(webhook))
    for number in range(20):
        body = json.dumps(review_of(REVIEWS, uid=f"u{number}"))
        connection.request("POST", "/inject?timeout=10s", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert json.loads(answer.read())["response"]["uid"] == f"u{number}"
    connection.close()


def test_the_log_says_what_became_of_each_pod(webhook: WebhookProcess) -> None:
    admit(webhook)
    lines = [json.loads(line) for line in webhook.log.read_text().splitlines()]
    injected = [line for line in lines if line["event"] == "injected"][-1]
    assert injected["pod"] == "Pod default/reviews-v1-7d6bdb6c5-*"
    assert injected["reason"] == "namespace default is labelled istio-injection=enabled"
    assert not [line for line in lines if line.get("level") == "error" and "exception" in line]

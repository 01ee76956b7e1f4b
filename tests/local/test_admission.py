"""What the engine makes of a webhook's answers: a real HTTPS server that answers rightly, wrongly, or not at all."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from local import admission
from local.admission import Webhook
from mesh.errors import Forbidden, Unavailable
from tests.support.certificates import Authority

NAME = "heddle-webhook.istio-system.svc"
POD = {"metadata": {"namespace": "n", "name": "p"}, "spec": {"containers": []}}
Answer = Callable[[dict[str, Any]], tuple[int, bytes]]


class Server:
    def __init__(self, folder: Path, dns: str = NAME) -> None:
        authority = Authority()
        issued = authority.issue(dns=dns)
        (folder / "server.pem").write_text(issued.chain_pem + issued.key_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem")
        self.answer: Answer = lambda request: (200, b"{}")
        self.seen: list[dict[str, Any]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                server.seen.append({"path": self.path, **request})
                code, body = server.answer(request["request"])
                self.send_response(code)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.port = int(self._http.server_address[1])
        self.webhook = Webhook("127.0.0.1", self.port, NAME, lambda: authority.root_pem)

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path)
    yield running
    running.close()


def review(uid: str, **response: object) -> bytes:
    return json.dumps({"kind": "AdmissionReview", "response": {"uid": uid, "allowed": True, **response}}).encode()


def patch(*operations: dict[str, object]) -> str:
    return base64.b64encode(json.dumps(operations).encode()).decode()


def test_the_patch_is_applied_to_a_copy(server: Server) -> None:
    add = patch({"op": "add", "path": "/spec/containers/-", "value": {"name": "istio-proxy"}})
    server.answer = lambda request: (200, review(request["uid"], patchType="JSONPatch", patch=add))
    assert server.webhook.admit(POD, "u1")["spec"]["containers"] == [{"name": "istio-proxy"}]
    assert POD["spec"] == {"containers": []}
    (seen,) = server.seen
    assert seen["path"] == "/inject"
    request = seen["request"]
    assert (request["uid"], request["operation"], request["namespace"], request["object"]) == ("u1", "CREATE", "n", POD)


def test_without_a_patch_the_pod_stays_as_it_is(server: Server) -> None:
    server.answer = lambda request: (200, review(request["uid"]))
    assert server.webhook.admit(POD, "u") is POD


def test_a_denial_has_the_webhooks_reason(server: Server) -> None:
    server.answer = lambda request: (200, review(request["uid"], allowed=False, status={"message": "no such image"}))
    with pytest.raises(Forbidden, match="the injection webhook refused pod n/p: no such image"):
        server.webhook.admit(POD, "u")
    server.answer = lambda request: (200, review(request["uid"], allowed=False))
    with pytest.raises(Forbidden, match="no reason given"):
        server.webhook.admit(POD, "u")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda request: (500, b"oops"), "answered 500: oops"),
        (lambda request: (302, b""), "answered 302"),
        (lambda request: (200, b"no json"), "does not answer"),
        (lambda request: (200, b"[]"), "did not answer with an AdmissionReview"),
        (lambda request: (200, b'{"response": "yes"}'), "did not answer with an AdmissionReview"),
        (lambda request: (200, review("other")), "answered for another request"),
        (lambda request: (200, review(request["uid"], patch="%%%")), "patch does not apply"),
        (lambda request: (200, review(request["uid"], patch=base64.b64encode(b"{").decode())), "patch does not apply"),
        (lambda request: (200, review(request["uid"], patch=5)), "patch does not apply"),
        (lambda request: (200, review(request["uid"], patch=patch({"op": "fly"}))), "patch does not apply"),
        (
            lambda request: (200, review(request["uid"], patch=patch({"op": "remove", "path": "/none"}))),
            "patch does not apply",
        ),
        (
            lambda request: (200, review(request["uid"], patch=patch({"op": "test", "path": "/spec", "value": 1}))),
            "patch does not apply",
        ),
    ],
)
def test_a_wrong_answer_is_unavailable_with_what_it_was(server: Server, answer: Answer, words: str) -> None:
    server.answer = answer
    with pytest.raises(Unavailable, match=words):
        server.webhook.admit(POD, "u")


def test_when_it_is_down_or_hangs_it_is_unavailable(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "DEADLINE_SECONDS", 0.2)
    hang = threading.Event()
    server.answer = lambda request: (200 if hang.wait(20) else 500, b"")
    with pytest.raises(Unavailable, match="does not answer"):
        server.webhook.admit(POD, "u")
    hang.set()
    with pytest.raises(Unavailable, match="does not answer"):
        Webhook("127.0.0.1", 1, NAME, lambda: Authority().root_pem).admit(POD, "u")


def test_only_a_certificate_of_our_root_for_its_name_counts(server: Server, tmp_path: Path) -> None:
    foreign = Webhook("127.0.0.1", server.port, NAME, lambda: Authority("other").root_pem)
    with pytest.raises(Unavailable, match="does not answer"):
        foreign.admit(POD, "u")
    other = Server(tmp_path, dns="other.istio-system.svc")
    with pytest.raises(Unavailable, match="does not answer"):
        other.webhook.admit(POD, "u")
    other.close()
    assert server.seen == other.seen == []


def test_without_root_certificates_it_says_so(server: Server, tmp_path: Path) -> None:
    webhook = Webhook("127.0.0.1", server.port, NAME, (tmp_path / "none.pem").read_text)
    with pytest.raises(Unavailable, match="no root certificates"):
        webhook.admit(POD, "u")

"""Another trust domain and this mesh, under STRICT: its workloads are let in by its own roots, fetched from its bundle
endpoint, and whoever it certifies under our names is not. Revocation goes on to count."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec

from mesh.identity import Identity
from svid.material import TrustBundle
from svid.spiffe_bundle import spiffe_bundle_json
from tests.behaviour.world import CALLER, ONE_REQUEST, STRANGER, Answer, Asker, World, eventually, thing
from tests.support.chains import PEM, Chain, key_pem

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
PARTNER = "partner.example"
ENDPOINT_PORT = 8643
CA = Identity(PARTNER, "istio-system", "heddle-ca")
WEB = Identity(PARTNER, "shop", "web")
US = Identity("cluster.local", "mesh", "client")
STRICT = thing("PeerAuthentication", "case", {"mtls": {"mode": "STRICT"}})


class Partner:
    """The other trust domain: its root, what it certifies with it, and a process of its in a pod without a sidecar."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._chain = Chain(trust_domain=PARTNER)
        # Name constraints of an honest intermediate must not be what stops a lie.
        self._liar = Chain(root_key=self._chain.root_key, root=self._chain.root, trust_domain="cluster.local")
        self._asker = Asker.start(world.mesh.state, CALLER, STRANGER)
        (caller,) = world.pods("plain", "caller")
        self.url = f"https://{caller['ip']}:{ENDPOINT_PORT}/bundle"
        (echo, *_) = world.pods("mesh", "echo-v1")
        self._echo = [echo["ip"], 8080]

    @property
    def root(self) -> str:
        return str(self._chain.root.public_bytes(PEM).decode())

    def holding(self, identity: Identity) -> dict[str, str]:
        """Certificate and key of who is so called, by the partner's root."""
        chain = self._chain if identity.trust_domain == PARTNER else self._liar
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = chain.leaf(key, identity)
        shown: bytes = leaf.public_bytes(PEM) + chain.intermediate.public_bytes(PEM)
        return {"chain": shown.decode(), "key": key_pem(key).decode()}

    def serve(self, sequence: int) -> None:
        """The bundle endpoint, profile https_spiffe."""
        body = spiffe_bundle_json(TrustBundle(PARTNER, sequence, (self.root,)), 60)
        self._asker.ask([{"serve": json.dumps(body), "port": ENDPOINT_PORT, **self.holding(CA)}])

    def call(self, identity: Identity) -> Answer:
        """What the app `echo` says to who is so called."""
        roots = Path(self._world.mesh.state, "ca", "roots.pem").read_text()
        (answer,) = self._asker.ask([{"call": self._echo, "roots": roots, **self.holding(identity)}])
        return answer

    def close(self) -> None:
        self._asker.close()


@pytest.fixture
def partner(world: World) -> Iterator[Partner]:
    made = Partner(world)
    yield made
    made.close()


def refused(answer: Answer) -> bool:
    """By TLS: there is no answer."""
    return "error" in answer and any(word in answer["error"] for word in ("SSL", "Reset", "RemoteDisconnected"))


def serial(world: World, pod: str) -> str:
    certificate: dict[str, str] = json.loads(world.agent(pod, "status"))["certificate"]
    return certificate["serial"]


def test_a_partner_is_let_in_and_cannot_speak_for_us(world: World, case: Callable[..., Any], partner: Partner) -> None:
    case(STRICT)
    eventually(lambda: refused(partner.call(WEB)), "a stranger is let in")
    partner.serve(1)
    trusted = {
        "trustDomains": [PARTNER],
        "pem": partner.root,
        "spiffeBundleUrl": partner.url,
        "endpointSpiffeId": str(CA),
    }
    settings = yaml.safe_dump({"enableAutoMtls": True, "caCertificates": [trusted]})
    federation = thing("ConfigMap", "istio", namespace="istio-system", data={"mesh": settings})
    since = time.monotonic()
    case(STRICT, ONE_REQUEST, federation)
    answer = eventually(lambda: (found := partner.call(WEB)).get("status") == 200 and found, "the partner stays out")
    print(f"let in {time.monotonic() - since:.1f} s after the settings")
    assert f"URI={WEB}" in answer["body"]["headers"]["x-forwarded-client-cert"]
    assert world.get("http://echo.mesh/")["status"] == 200  # our own go on
    for lie in (US, Identity("third.example", "shop", "web")):
        assert refused(partner.call(lie)), lie

    # What is revoked here is refused here, while others are federated.
    with world.explained.outside("which certificates are revoked is the ca's to say"):
        world.mesh.run("certificates", "revoke", "--serial", serial(world, "mesh/client"))
        try:
            eventually(lambda: world.get("http://echo.mesh/").get("status") == 503, "a revoked client is let in")
            assert partner.call(WEB)["status"] == 200
        finally:
            for entry in world.mesh.json("certificates", "revoked")["entries"]:
                world.mesh.run("certificates", "unrevoke", next(iter(entry["serials"])))
        eventually(lambda: world.get("http://echo.mesh/").get("status") == 200, "what was restored is refused")

    case(STRICT)
    eventually(lambda: refused(partner.call(WEB)), "a trust domain that is trusted no more is let in")
    assert world.get("http://echo.mesh/")["status"] == 200

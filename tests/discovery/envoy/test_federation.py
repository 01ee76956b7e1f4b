"""Trust domains that trust each other, and no further: real Envoys with what proxies are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from ca.crl import revocation_list
from ca.revocation import Entry, Revocations
from discovery.envoy.tls import mesh_client, mesh_server
from discovery.plan.model import ClientTls, Destination, Resolution, TlsMode
from mesh.sds import DEFAULT, ROOTCA, federated_validation_secret, tls_secret, validation_secret
from tests.support.certificates import Authority, Certificate
from tests.support.chains import PEM, Chain, key_pem
from tests.support.tls_pairs import Ends, TlsPairs, tls_context
from tests.support.waiting import wait_for

OURS, THEIRS, THIRD = Authority("ours"), Authority("theirs"), Authority("third")
DOMAINS = ("cluster.local", "old.example", "partner.example")
"""The mesh's own, an alias of it, and one with roots of its own."""
ROOTS = {
    "cluster.local": [OURS.root_pem],
    "old.example": [OURS.root_pem],
    "partner.example": [THEIRS.root_pem],
}


def svid(authority: Authority, domain: str) -> Certificate:
    return authority.issue(uri=f"spiffe://{domain}/ns/default/sa/a")


PEERS = {
    "own": svid(OURS, "cluster.local"),
    "an alias": svid(OURS, "old.example"),
    "partner": svid(THEIRS, "partner.example"),
    "partner as us": svid(THEIRS, "cluster.local"),
    "partner as our alias": svid(THEIRS, "old.example"),
    "we as partner": svid(OURS, "partner.example"),
    "a third as us": svid(THIRD, "cluster.local"),
    "a third as itself": svid(THIRD, "third.example"),
    "a third as partner": svid(THIRD, "partner.example"),
    "partner as a third": svid(THEIRS, "third.example"),
}


def common(socket: dict[str, Any]) -> dict[str, Any]:
    """The context of what discovery renders, with SDS secrets turned into static ones."""
    context = dict(socket["typed_config"]["common_tls_context"])
    context["tls_certificate_sds_secret_configs"] = [{"name": DEFAULT}]
    combined = context["combined_validation_context"]
    context["combined_validation_context"] = {**combined, "validation_context_sds_secret_config": {"name": ROOTCA}}
    return context


def theirs(certificate: Certificate) -> dict[str, Any]:
    """A peer of any kind, which takes us for who we are."""
    return tls_context(certificate.chain_pem, certificate.key_pem, {"trusted_ca": {"inline_string": OURS.root_pem}})


def secrets(validation: dict[str, Any]) -> list[dict[str, Any]]:
    own = PEERS["own"]
    made = (tls_secret(DEFAULT, own.chain_pem, own.key_pem), validation)
    return [{key: value for key, value in each.items() if key != "@type"} for each in made]


FEDERATED = federated_validation_secret(ROOTCA, ROOTS)
DESTINATION = Destination("outbound|80||a.default.svc.cluster.local", Resolution.ENDPOINTS)
TRUSTED = {"own", "an alias", "partner"}


def test_a_server_takes_each_trust_domain_from_its_own_authority_alone(tmp_path: Path) -> None:
    server = common(mesh_server(DOMAINS, http=False))
    pairs = {name: Ends(server, theirs(peer)) for name, peer in PEERS.items()}
    with TlsPairs(pairs, tmp_path, secrets(FEDERATED)) as envoys:
        assert envoys.speaks() == TRUSTED


def test_a_client_takes_each_trust_domain_from_its_own_authority_alone(tmp_path: Path) -> None:
    client = common(mesh_client(DESTINATION, ClientTls(TlsMode.ISTIO_MUTUAL), DOMAINS))
    pairs = {name: Ends(theirs(peer), client) for name, peer in PEERS.items()}
    with TlsPairs(pairs, tmp_path, secrets(FEDERATED)) as envoys:
        assert envoys.speaks() == TRUSTED


def test_a_client_that_expects_one_identity_takes_no_other(tmp_path: Path) -> None:
    expected = ClientTls(TlsMode.ISTIO_MUTUAL, server_identities=("spiffe://partner.example/ns/default/sa/a",))
    client = common(mesh_client(DESTINATION, expected, DOMAINS))
    pairs = {name: Ends(theirs(peer), client) for name, peer in PEERS.items()}
    with TlsPairs(pairs, tmp_path, secrets(FEDERATED)) as envoys:
        assert envoys.speaks() == {"partner"}


@pytest.mark.parametrize(
    ("domains", "taken"), [(DOMAINS[:1], {"own"}), (DOMAINS[:2], {"own", "an alias"})], ids=["alone", "alias"]
)
def test_without_federation_there_are_own_roots_and_aliases(
    tmp_path: Path, domains: tuple[str, ...], taken: set[str]
) -> None:
    server = common(mesh_server(domains, http=False))
    pairs = {name: Ends(server, theirs(peer)) for name, peer in PEERS.items()}
    with TlsPairs(pairs, tmp_path, secrets(validation_secret(ROOTCA, [OURS.root_pem]))) as envoys:
        assert envoys.speaks() == taken


class Watched:
    """The agent replaces the secret; here a file that Envoy watches takes the agent's place."""

    def __init__(self, directory: Path, secret: dict[str, Any]) -> None:
        self._next, self._file = directory / "secret.json", directory / "watched" / "secret.json"
        self._file.parent.mkdir()
        self.put(secret)

    def put(self, secret: dict[str, Any]) -> None:
        self._next.write_text(json.dumps({"resources": [secret]}))
        self._next.replace(self._file)

    def checks(self, context: dict[str, Any]) -> dict[str, Any]:
        """The context, whose peers are checked by this secret."""
        watched = {"path": str(self._file.parent)}
        source = {"path_config_source": {"path": str(self._file), "watched_directory": watched}}
        reference = {"name": ROOTCA, "sds_config": source}
        combined = context["combined_validation_context"] | {"validation_context_sds_secret_config": reference}
        return context | {"combined_validation_context": combined}


def test_federation_begins_and_ends_in_a_running_envoy(tmp_path: Path) -> None:
    alone = validation_secret(ROOTCA, [OURS.root_pem])
    watched = Watched(tmp_path, alone)
    put = watched.put
    server = watched.checks(common(mesh_server(DOMAINS, http=False)))
    pairs = {name: Ends(server, theirs(peer)) for name, peer in PEERS.items()}
    with TlsPairs(pairs, tmp_path, secrets(FEDERATED)[:1]) as envoys:
        assert "partner" not in envoys.speaks()
        put(FEDERATED)
        wait_for(lambda: envoys.speaks() == TRUSTED)
        put(alone)
        wait_for(lambda: "partner" not in envoys.speaks())


CHAIN = Chain()
"""As the ca has it: leaves below an intermediate that is revoked by the list of its root."""
SERIALS = {"own": 0x51 << 120, "revoked": 0x52 << 120}


def held(serial: int) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = CHAIN.odd_leaf(key, {"serial": serial})
    chain = leaf.public_bytes(PEM) + CHAIN.intermediate.public_bytes(PEM)
    return Certificate(chain.decode(), key_pem(key).decode())


@pytest.mark.parametrize("side", ["server", "client"])
def test_lists_hold_while_others_are_federated(tmp_path: Path, side: str) -> None:
    """The list comes to a running Envoy, which has spoken with all of them and has their sessions."""
    roots = {"cluster.local": [CHAIN.root.public_bytes(PEM).decode()], "partner.example": [THEIRS.root_pem]}
    peers = {name: held(serial) for name, serial in SERIALS.items()} | {"partner": PEERS["partner"]}
    entry = Entry({f"{SERIALS['revoked']:x}": CHAIN.now + 86400}, CHAIN.now)
    listed = revocation_list(CHAIN.root, CHAIN.root_key, Revocations(1, CHAIN.now, (entry,)))
    none = revocation_list(CHAIN.root, CHAIN.root_key, Revocations(2, CHAIN.now))
    watched = Watched(tmp_path, federated_validation_secret(ROOTCA, roots))
    own = secrets(FEDERATED)[:1]
    if side == "server":
        checked = watched.checks(common(mesh_server(DOMAINS, http=False)))
        pairs = {name: Ends(checked, theirs(peer)) for name, peer in peers.items()}
    else:
        checked = watched.checks(common(mesh_client(DESTINATION, ClientTls(TlsMode.ISTIO_MUTUAL), DOMAINS)))
        pairs = {name: Ends(theirs(peer), checked) for name, peer in peers.items()}
    with TlsPairs(pairs, tmp_path, own) as envoys:
        assert envoys.speaks() == {"own", "revoked", "partner"}
        watched.put(federated_validation_secret(ROOTCA, roots, {"cluster.local": [listed]}))
        wait_for(lambda: envoys.speaks() == {"own", "partner"})
        assert envoys.speaks() == {"own", "partner"}
        watched.put(federated_validation_secret(ROOTCA, roots, {"cluster.local": [none]}))
        wait_for(lambda: envoys.speaks() == {"own", "revoked", "partner"})

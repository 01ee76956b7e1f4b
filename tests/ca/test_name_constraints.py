"""An intermediate cannot certify beyond its trust domain: asked of openssl, Python's ssl and a pair of real Envoys."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ca.issue import pem
from ca.policy import Grant
from ca.profile import intermediate_certificate, root_certificate
from ca.request import parse_request
from ca.settings import CaSettings, ServiceAccount
from ca.sign import issuer_of, prepare, sign
from ca.trust import new_serial
from mesh.identity import Identity
from svid.request import new_key_request
from tests.support.tls_pairs import Ends, TlsPairs, tls_context

NOW, DAY = int(time.time()), 86400
PEM = serialization.Encoding.PEM
ROOT_KEY, KEY = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())


def authority(trust_domain: str) -> tuple[str, x509.Certificate]:
    root = root_certificate(ROOT_KEY, trust_domain, new_serial(), NOW - 60, NOW + 100 * DAY)
    below = intermediate_certificate(
        KEY.public_key(), root, ROOT_KEY, trust_domain, new_serial(), NOW - 60, NOW + 30 * DAY
    )
    return root.public_bytes(PEM).decode(), below


@dataclass(frozen=True)
class Leaf:
    """Signed by an intermediate of `trust_domain`, whatever it may certify."""

    trust_domain: str
    identity: str
    names: tuple[str, ...] = ()

    def chain_and_key(self, intermediate: x509.Certificate) -> tuple[str, str]:
        request = new_key_request()
        grant = Grant(Identity(self.identity, "default", "a"), self.names, NOW - 60, NOW + DAY)
        leaf = sign(KEY, prepare(issuer_of(intermediate), grant, parse_request(request.csr_pem), new_serial()))
        return pem(leaf) + intermediate.public_bytes(PEM).decode(), request.key_pem.decode()


WEBHOOK = CaSettings().dns_names(ServiceAccount("istio-system", "heddle-webhook"))
CANARY = CaSettings().dns_names(ServiceAccount("istio-system", "heddle-webhook-canary"))
GOOD = {
    "own": Leaf("cluster.local", "cluster.local"),
    "the webhook's names": Leaf("cluster.local", "cluster.local", WEBHOOK),
    "a revision's webhook": Leaf("cluster.local", "cluster.local", CANARY),
    "one label": Leaf("prod", "prod"),
    "labels with dashes and digits": Leaf("prod-1.2eu.example", "prod-1.2eu.example"),
    "not a DNS name": Leaf("under_score.example", "under_score.example"),
    "as an address": Leaf("10.0.0.1", "10.0.0.1"),
    "ends with a dash": Leaf("x-", "x-"),
}
BAD = {
    "another trust domain": Leaf("cluster.local", "evil.example"),
    "one below": Leaf("cluster.local", "x.cluster.local"),
    "one above": Leaf("prod.example", "example"),
    "a bank's name": Leaf("cluster.local", "cluster.local", ("bank.example",)),
    "a name of another namespace": Leaf("cluster.local", "cluster.local", ("a.default.svc",)),
}


@pytest.fixture(scope="module")
def authorities() -> dict[str, tuple[str, x509.Certificate]]:
    return {domain: authority(domain) for domain in {leaf.trust_domain for leaf in [*GOOD.values(), *BAD.values()]}}


def test_openssl(authorities: dict[str, tuple[str, x509.Certificate]], tmp_path: Path) -> None:
    accepted = set()
    for name, leaf in (GOOD | BAD).items():
        root, intermediate = authorities[leaf.trust_domain]
        (tmp_path / "root").write_text(root)
        (tmp_path / "chain").write_text(leaf.chain_and_key(intermediate)[0])
        verify = ["openssl", "verify", "-x509_strict", "-CAfile", tmp_path / "root", "-untrusted", tmp_path / "chain"]
        said = subprocess.run([*verify, tmp_path / "chain"], capture_output=True, text=True, check=False)
        assert said.returncode == 0 or "permitted subtree violation" in said.stderr, (name, said.stderr)
        if said.returncode == 0:
            accepted.add(name)
    assert accepted == GOOD.keys()


def test_envoys(authorities: dict[str, tuple[str, x509.Certificate]], tmp_path: Path) -> None:
    pairs = {}
    for name, leaf in (GOOD | BAD).items():
        root, intermediate = authorities[leaf.trust_domain]
        context = tls_context(*leaf.chain_and_key(intermediate), {"trusted_ca": {"inline_string": root}})
        pairs[name] = Ends(context, context)
    with TlsPairs(pairs, tmp_path) as envoys:
        assert envoys.speaks() == GOOD.keys()


def test_the_constraints_are_critical_and_roots_have_none(
    authorities: dict[str, tuple[str, x509.Certificate]],
) -> None:
    root, intermediate = authorities["cluster.local"]
    extension = intermediate.extensions.get_extension_for_class(x509.NameConstraints)
    assert extension.critical
    excluded = extension.value.excluded_subtrees
    assert excluded is not None
    assert [str(name.value) for name in excluded] == ["0.0.0.0/0", "::/0"]
    with pytest.raises(x509.ExtensionNotFound):
        x509.load_pem_x509_certificate(root.encode()).extensions.get_extension_for_class(x509.NameConstraints)


def test_the_names_are_those_of_the_control_planes_namespace() -> None:
    root = root_certificate(ROOT_KEY, "cluster.local", new_serial(), NOW - 60, NOW + DAY)
    serial, ends = new_serial(), NOW + DAY
    made = intermediate_certificate(KEY.public_key(), root, ROOT_KEY, "cluster.local", serial, NOW, ends, "mesh")
    permitted = made.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees
    assert permitted is not None
    assert [name.value for name in permitted] == ["cluster.local", "mesh.svc", "mesh.svc.cluster.local"]


@pytest.mark.parametrize("domain", ["under_score.example", "10.0.0.1", "x-"])
def test_none_where_envoy_would_refuse_everything_under_them(
    authorities: dict[str, tuple[str, x509.Certificate]], domain: str
) -> None:
    with pytest.raises(x509.ExtensionNotFound):
        authorities[domain][1].extensions.get_extension_for_class(x509.NameConstraints)

"""A root to import: what passes, and one case for each thing that is refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from ca.root_import import ImportedRoot, check_import
from mesh.problems import ObjectErrors
from tests.ca.authorities import NOW, Made, cacerts, key, make

MONTH = 30 * 86400.0
DAYS = timedelta(days=1)

Files = dict[str, bytes]


def check(files: Files, passphrase: bytes | None = None) -> ImportedRoot:
    return check_import(files, passphrase, "cluster.local", NOW.timestamp(), MONTH)


def alone(**change: object) -> Files:
    """A root that comes with its own key."""
    root = make("root", **change)  # type: ignore[arg-type]
    return {"root-cert.pem": root.pem, "ca-cert.pem": root.pem, "ca-key.pem": root.key_pem()}


def under(root: Made | None = None, **change: object) -> Files:
    """An intermediate of a root whose key stays elsewhere."""
    root = root or make("root")
    return cacerts(make("between", root, **{"path_length": 0, **change}), root)  # type: ignore[arg-type]


def constrained(permitted: list[str] | None, excluded: list[str] | None = None) -> tuple[x509.NameConstraints, bool]:
    def trees(hosts: list[str] | None) -> list[x509.GeneralName] | None:
        return [x509.UniformResourceIdentifier(host) for host in hosts] if hosts else None

    return x509.NameConstraints(trees(permitted), trees(excluded)), True


def test_a_root_with_its_key() -> None:
    found = check(alone(uris=("spiffe://cluster.local",)))
    assert not found.offline
    assert found.chain == ()
    assert found.key.public_key() == key("root").public_key()


def test_an_intermediate_of_a_root_that_stays_elsewhere() -> None:
    files = under()
    found = check(files)
    assert found.offline
    assert [c.subject.rfc4514_string() for c in (*found.chain, found.root)] == ["CN=between", "CN=root"]
    assert check({**files, "cert-chain.pem": b""}).chain == found.chain
    assert check({**files, "cert-chain.pem": files["ca-cert.pem"] + files["root-cert.pem"]}).chain == found.chain


def test_a_longer_chain_in_any_order() -> None:
    root = make("root", path_length=2)
    upper = make("upper", root, path_length=1)
    middle = make("middle", upper, path_length=0)
    files = cacerts(middle, root, upper, cert_chain=upper.pem + middle.pem)
    assert [c.subject.rfc4514_string() for c in check(files).chain] == ["CN=middle", "CN=upper"]


def test_the_names_of_a_tls_secret() -> None:
    files = under()
    tls = {"ca.crt": files["root-cert.pem"], "tls.crt": files["ca-cert.pem"], "tls.key": files["ca-key.pem"]}
    assert check(tls).offline


def test_an_encrypted_key_with_its_passphrase() -> None:
    files = {**alone(), "ca-key.pem": make("root").key_pem(b"open sesame")}
    assert check(files, b"open sesame").key.public_key() == key("root").public_key()


@pytest.mark.parametrize("own", [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())])
def test_kinds_of_keys_that_proxies_verify(own: object) -> None:
    assert check(alone(own_key=own)).key.public_key() == own.public_key()  # type: ignore[attr-defined]


@pytest.mark.parametrize("trees", [["cluster.local"], [".local"], ["other", "cluster.local"]])
def test_name_constraints_that_allow_the_trust_domain(trees: list[str]) -> None:
    assert check(alone(extra=(constrained(trees),))).root


def test_another_root_beside_the_right_one_is_left_out_and_said() -> None:
    files = under()
    found = check({**files, "root-cert.pem": make("stranger").pem + files["root-cert.pem"]})
    assert "CN=stranger is not between" in str(found.warnings[0])


def test_who_signs_no_revocation_lists_is_told_so() -> None:
    assert "no revocation lists" in str(check(alone()).warnings[-1])
    assert "no revocation lists" in str(check(under()).warnings[-1])


def other_key(files: Files) -> Files:
    return {**files, "ca-key.pem": make("stranger").key_pem()}


def forged(files: Files) -> Files:
    """The chain of a root of the same name with another key."""
    return {**files, "root-cert.pem": make("root", own_key=key("another root")).pem}


POISON = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)
CLIENT = (x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]), False)

REFUSED: dict[str, tuple[Callable[[], Files], str]] = {
    "no root": (lambda: {**under(), "root-cert.pem": b""}, "root-cert.pem"),
    "no certificate": (lambda: {n: c for n, c in under().items() if n != "ca-cert.pem"}, "it is missing"),
    "no key": (lambda: {n: c for n, c in under().items() if n != "ca-key.pem"}, "own key is not needed"),
    "no PEM": (lambda: {**under(), "ca-cert.pem": b"\x30\x82"}, "no PEM certificate"),
    "damaged certificate": (
        lambda: {**under(), "ca-cert.pem": b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"},
        "cannot be read",
    ),
    "damaged key": (
        lambda: {**under(), "ca-key.pem": b"-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n"},
        "cannot be read as a PEM key",
    ),
    "wrong passphrase": (lambda: {**alone(), "ca-key.pem": make("root").key_pem(b"y" * 16)}, "passphrase is wrong"),
    "encrypted key": (lambda: {**alone(), "ca-key.pem": make("root").key_pem(b"x" * 16)}, "it is encrypted"),
    "another key": (lambda: other_key(alone()), "not the key of the certificate"),
    "another key below a root": (lambda: other_key(under()), "not the key of the certificate"),
    "CA:FALSE": (lambda: alone(constraints=x509.BasicConstraints(ca=False, path_length=None)), "CA:TRUE"),
    "no basicConstraints": (lambda: alone(no_constraints=True), "CA:TRUE"),
    "basicConstraints not critical": (lambda: under(constraints_critical=False), "not critical"),
    "no keyCertSign": (lambda: alone(usage=False), "keyCertSign"),
    "no keyUsage": (lambda: alone(usage=None), "keyCertSign"),
    "for clients alone": (lambda: under(extra=(CLIENT,)), "both servers and clients"),
    "no subjectKeyIdentifier": (lambda: alone(subject_key=False), "subjectKeyIdentifier"),
    "no authorityKeyIdentifier": (lambda: under(authority_key=False), "authorityKeyIdentifier"),
    "root that may have nothing below": (lambda: alone(path_length=0), "path length is 0"),
    "root with too short a path": (lambda: under(make("root", path_length=0)), "path length is 0"),
    "expired": (lambda: alone(ends=NOW - DAYS), "it ended on 2026-05-31"),
    "ends soon": (lambda: under(ends=NOW + 20 * DAYS), "in less than 30 days"),
    "not yet valid": (lambda: alone(begins=NOW + DAYS), "not valid before 2026-06-02"),
    "root expired above": (lambda: under(make("root", ends=NOW - DAYS)), "root-cert"),
    "Ed25519": (lambda: alone_ed25519(), "not one that every proxy verifies"),
    "P-521": (lambda: alone(own_key=ec.generate_private_key(ec.SECP521R1())), "not one that every proxy verifies"),
    "RSA of 1024 bits": (lambda: alone(own_key=rsa.generate_private_key(65537, 1024)), "not one that every proxy"),
    "a weak digest": (lambda: under(digest=hashes.SHA224()), "signed with sha224"),
    "no subject": (lambda: under(subject=x509.Name([])), "no subject"),
    "another trust domain": (lambda: alone(uris=("spiffe://other.example",)), "another trust domain"),
    "a workload's name": (lambda: alone(uris=("spiffe://cluster.local/ns/a/sa/b",)), "another trust domain"),
    "two trust domains": (lambda: alone(uris=("spiffe://cluster.local", "spiffe://b")), "another trust domain"),
    "constrained to others": (lambda: alone(extra=(constrained(["other.example"]),)), "nameConstraints"),
    "constrained away": (lambda: under(extra=(constrained(None, ["cluster.local"]),)), "nameConstraints"),
    "unknown critical extension": (lambda: under(extra=(POISON,)), "1.2.3.4"),
    "issuer is missing": (lambda: cacerts(below_two(), make("root", path_length=2)), "neither in cert-chain.pem"),
    "a root of its own": (lambda: cacerts(make("alone"), make("root")), "a root of its own"),
    "a forged chain": (lambda: forged(under()), "its signature is not that of CN=root"),
    "an intermediate for a root": (lambda: intermediate_alone(), "has not signed itself"),
    "too long a chain": (lambda: long_chain(), "more than 4 certificates"),
}


def alone_ed25519() -> Files:
    own = ed25519.Ed25519PrivateKey.generate()
    root = make("between", make("root"), own_key=own, path_length=0)
    return cacerts(root, make("root"))


def below_two() -> Made:
    return make("low", make("upper", make("root", path_length=2), path_length=1), path_length=0)


def intermediate_alone() -> Files:
    made = make("between", make("root"))
    return {"root-cert.pem": made.pem, "ca-cert.pem": made.pem, "ca-key.pem": made.key_pem()}


def long_chain() -> Files:
    path = [make("root")]
    for number in range(5):
        path.append(make(f"link {number}", path[-1]))
    return cacerts(path[-1], path[0], *path[1:-1])


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    make_files, said = REFUSED[name]
    with pytest.raises(ObjectErrors) as refusal:
        check(make_files(), b"x" * 16 if name == "wrong passphrase" else None)
    assert said in str(refusal.value)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ObjectErrors) as refusal:
        check(other_key(alone(ends=NOW - DAYS, usage=False, uris=("spiffe://b",))))
    assert len(refusal.value.problems) == 4

"""The list of what is revoked, as a value, and as the list that proxies get."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from ca import revocation
from ca.authority import Authority
from ca.issue import Issuance, Issued
from ca.ledger import Ledger
from ca.policy import Caller
from ca.request import parse_request
from ca.revocation import Entry, Revocations, restored, revocations_json, revocations_of, revoked
from ca.revoking import Revoking, Wish
from ca.rotation.documents import documents_of, root_facts, rotation_of, with_new_root
from ca.rotation.state import Phase, started
from ca.settings import CaSettings
from ca.store import DirectoryStore
from ca.trust import new_trust
from mesh.errors import Busy, Forbidden, InvalidInput, MissingPrerequisite, NotFound
from mesh.identity import Identity
from svid.request import new_key_request

NOW = 1_800_000_000
WEB = Identity("cluster.local", "shop", "web")


# ---- the list


def test_adding_and_restoring() -> None:
    one = revoked(Revocations(), Entry({"ab": NOW + 10}, NOW, "keyCompromise"), NOW)
    assert (one.number, one.updated) == (1, NOW)
    assert revoked(one, Entry({"ab": NOW + 10}, NOW + 1), NOW + 1) is one
    two = revoked(one, Entry({"cd": NOW + 10, "ab": NOW + 10}, NOW, identity=str(WEB)), NOW)
    assert [serial for serial, _ in two.serials()] == ["ab", "cd"]
    back = restored(two, "ab", NOW)
    assert [entry.name for entry in back.entries] == [str(WEB)]
    with pytest.raises(NotFound, match="revoked with spiffe://"):
        restored(back, "cd", NOW)
    with pytest.raises(NotFound, match="ff is not revoked"):
        restored(back, "ff", NOW)
    assert revocations_of({revocation.DOCUMENT: json.dumps(revocations_json(two))}) == two


def test_an_identity_gains_serials() -> None:
    known = revoked(Revocations(), Entry({"ab": NOW + 10}, NOW, "superseded", str(WEB)), NOW)
    known = revoked(known, Entry({"cd": NOW + 10}, NOW + 5, "unspecified", str(WEB)), NOW + 5)
    assert known.entries == (Entry({"cd": NOW + 10, "ab": NOW + 10}, NOW, "superseded", str(WEB)),)


def test_what_has_ended_goes_with_the_next_change_and_identities_stay() -> None:
    known = revoked(Revocations(), Entry({"ab": NOW + 10}, NOW), NOW)
    known = revoked(known, Entry({"cd": NOW + 10}, NOW, identity=str(WEB)), NOW)
    known = revoked(known, Entry({"ef": NOW + 100}, NOW + 11), NOW + 11)
    assert [(entry.name, dict(entry.serials)) for entry in known.entries] == [
        (str(WEB), {}),
        ("ef", {"ef": NOW + 100}),
    ]
    assert "has been revoked" in known.refusal(str(WEB), "")


def test_refusal() -> None:
    known = revoked(Revocations(), Entry({"ab": NOW + 10}, NOW, "keyCompromise"), NOW)
    assert known.refusal(str(WEB), "ab") == "certificate ab has been revoked (keyCompromise)"
    assert known.refusal(str(WEB), "") == known.refusal(str(WEB), "abc") == ""


def test_keys_are_added_and_kept() -> None:
    known = revoked(Revocations(), Entry({"ab": NOW + 10}, NOW, "keyCompromise"), NOW)
    more = revoked(known, Entry({"ab": NOW + 10}, NOW, "keyCompromise", keys=frozenset({"k"})), NOW)
    assert more.number == 2
    assert revoked(more, Entry({"ab": NOW + 10}, NOW), NOW) is more
    assert (more.knows_key("k"), more.knows_key("")) == (True, False)
    assert revocations_of({revocation.DOCUMENT: json.dumps(revocations_json(more))}) == more


def test_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation, "MOST_SERIALS", 1)
    known = revoked(Revocations(), Entry({"ab": NOW + 10}, NOW), NOW)
    with pytest.raises(Busy, match="rotate"):
        revoked(known, Entry({"cd": NOW + 10}, NOW), NOW)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"number":1,"updated":1,"entries":[{}]}', "null"])
def test_a_damaged_list_is_not_an_empty_one(text: str) -> None:
    with pytest.raises(MissingPrerequisite, match=r"revocations\.json"):
        revocations_of({revocation.DOCUMENT: text})


@pytest.mark.parametrize(("text", "serial"), [("0AB", "ab"), ("01:ff:2C", "1ff2c")])
def test_serials_as_people_write_them(text: str, serial: str) -> None:
    assert revocation.check_serial(text) == serial


@pytest.mark.parametrize("text", ["", "0", "xyz", "a" * 41, "-1", "spiffe://x"])
def test_what_is_no_serial(text: str) -> None:
    with pytest.raises(InvalidInput):
        revocation.check_serial(text)


def test_identities_of_this_trust_domain_only() -> None:
    assert revocation.check_identity(str(WEB), "cluster.local") == str(WEB)
    for text in ("spiffe://other/ns/a/sa/b", "web"):
        with pytest.raises(InvalidInput):
            revocation.check_identity(text, "cluster.local")


# ---- at work


def now() -> float:
    return float(NOW)


class Place:
    """The ca without HTTP: `ca(name)` is a replica on the shared store."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = DirectoryStore(directory)

    def replica(self, name: str) -> tuple[Authority, Issuance, Revoking]:
        settings = CaSettings()
        authority = Authority(self.store, lambda: b"x" * 32, settings, now)
        ledger = Ledger(self.directory / name)
        revoking = Revoking(authority, self.store, ledger, settings, now)
        authority.on_trust(revoking.complete)
        return authority, Issuance(authority, ledger, settings, now), revoking


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def issue(
    issuance: Issuance, proof: str = "", identity: Identity = WEB, pod: str = "web-1", csr: str | None = None
) -> Issued:
    kind = "certificate" if proof else "token"
    caller = Caller(kind, identity, identity.namespace, pod, "uid", "node", proof)
    return issuance.issue(caller, parse_request(csr or new_key_request().csr_pem), None)


def openssl_accepts(directory: Path, issued: Issued, authority: Authority) -> bool:
    """By the bundle's roots and lists, strictly, the whole chain."""
    files = {
        "leaf": issued.leaf_pem,
        "intermediate": issued.intermediate_pem,
        "roots": authority.bundle.pem,
        "lists": "".join(authority.bundle.crls),
    }
    paths = {}
    for name, text in files.items():
        paths[name] = directory / f"{name}.pem"
        paths[name].write_text(text)
    command = ["openssl", "verify", "-x509_strict", "-attime", str(NOW), "-CAfile", paths["roots"]]
    lists = ["-crl_check_all", "-CRLfile", paths["lists"]] if files["lists"] else []
    done = subprocess.run(
        [*command, *lists, "-untrusted", paths["intermediate"], paths["leaf"]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 or "certificate revoked" in done.stderr, done.stderr
    return done.returncode == 0


def test_one_serial(place: Place) -> None:
    authority, issuance, revoking = place.replica("a")
    other_authority, other, _ = place.replica("b")
    bad, good, elsewhere = issue(issuance), issue(issuance), issue(other)
    assert authority.bundle.crls == ()
    revoking.carry_out(Wish("revoke", serial=bad.serial, reason="keyCompromise"), "somebody")
    assert not openssl_accepts(place.directory, bad, authority)
    assert openssl_accepts(place.directory, good, authority)
    assert openssl_accepts(place.directory, elsewhere, authority)
    with pytest.raises(Forbidden, match=f"{bad.serial} has been revoked"):
        issue(issuance, proof=bad.serial)
    assert issue(issuance).serial  # by its token
    other_authority.refresh()
    with pytest.raises(Forbidden, match="has been revoked"):
        issue(other, proof=bad.serial)
    assert not openssl_accepts(place.directory, bad, other_authority)
    [crl] = [x509.load_pem_x509_crl(text.encode()) for text in authority.bundle.crls]
    [entry] = crl
    assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.key_compromise


def test_an_identity_with_what_other_replicas_issued(place: Place) -> None:
    authority, issuance, revoking = place.replica("a")
    other_authority, other, _ = place.replica("b")
    ours, theirs = issue(issuance), issue(other)
    untouched = issue(other, identity=Identity("cluster.local", "shop", "cart"))
    revoking.carry_out(Wish("revoke", identity=str(WEB)), "somebody")
    other_authority.refresh()  # as by its watch: adds what only it knows of
    authority.refresh()
    for issued in (ours, theirs):
        assert not openssl_accepts(place.directory, issued, authority)
        assert not openssl_accepts(place.directory, issued, other_authority)
    assert openssl_accepts(place.directory, untouched, authority)
    for refusing in (issuance, other):
        with pytest.raises(Forbidden, match=r"sa/web has been revoked"):
            issue(refusing)
    revoking.carry_out(Wish("restore", identity=str(WEB)), "somebody")
    assert authority.bundle.crls == ()
    assert openssl_accepts(place.directory, issue(issuance), authority)


def test_a_pods_certificates(place: Place) -> None:
    authority, issuance, revoking = place.replica("a")
    bad, good = issue(issuance), issue(issuance, pod="web-2")
    after = revoking.carry_out(Wish("revoke", pod="shop/web-1"), "somebody")
    assert [entry.name for entry in after.entries] == [bad.serial]
    assert not openssl_accepts(place.directory, bad, authority)
    assert openssl_accepts(place.directory, good, authority)
    with pytest.raises(NotFound, match="shop/none has no certificate"):
        revoking.carry_out(Wish("revoke", pod="shop/none"), "somebody")


def test_an_intermediate_of_a_replica(place: Place) -> None:
    """Of one that was broken into: it goes, with everything that it signed."""
    authority, issuance, revoking = place.replica("a")
    _, other, _ = place.replica("b")
    ours, theirs = issue(issuance), issue(other)
    serial = x509.load_pem_x509_certificate(theirs.intermediate_pem.encode()).serial_number
    revoking.carry_out(Wish("revoke", serial=f"{serial:x}"), "somebody")
    assert openssl_accepts(place.directory, ours, authority)
    assert not openssl_accepts(place.directory, theirs, authority)


def test_after_a_restart(place: Place) -> None:
    _, issuance, revoking = place.replica("a")
    bad = issue(issuance)
    revoking.carry_out(Wish("revoke", serial=bad.serial), "somebody")
    authority, again, _ = place.replica("a")
    assert not openssl_accepts(place.directory, bad, authority)
    assert openssl_accepts(place.directory, issue(again), authority)


def test_the_control_plane_is_not_cut_off(place: Place) -> None:
    *_, revoking = place.replica("a")
    with pytest.raises(Forbidden, match="control plane"):
        revoking.carry_out(Wish("revoke", identity="spiffe://cluster.local/ns/istio-system/sa/heddle-ca"), "somebody")


def test_no_list_rather_than_half(place: Place) -> None:
    """A root whose key is not here, beside one whose is: a proxy with one list would refuse the other root's leaves."""
    authority, issuance, revoking = place.replica("a")
    elsewhere = Place(place.directory / "elsewhere")
    foreign = elsewhere.replica("a")[0].bundle.roots
    stored = place.store.read()
    assert stored is not None
    bundle = json.loads(stored.documents["bundle.json"])
    bundle |= {"sequence": 2, "roots": [*bundle["roots"], *foreign]}
    place.store.replace({**stored.documents, "bundle.json": json.dumps(bundle)}, stored.version)
    bad = issue(issuance)
    assert revoking.listed
    revoking.carry_out(Wish("revoke", serial=bad.serial), "somebody")
    assert len(authority.bundle.roots) == 2
    assert authority.bundle.crls == ()
    assert not revoking.listed
    with pytest.raises(Forbidden):
        issue(issuance, proof=bad.serial)


def test_while_the_root_is_rotated_each_root_has_its_list(place: Place) -> None:
    authority, issuance, revoking = place.replica("a")
    bad, good = issue(issuance), issue(issuance)
    revoking.carry_out(Wish("revoke", serial=bad.serial), "somebody")
    trust = authority.trust
    root = new_trust(b"x" * 32, CaSettings(), NOW).root_pem
    state = started(rotation_of(trust), root_facts(root).fingerprint, 60.0, float(NOW))
    place.store.replace(documents_of(with_new_root(trust, root), state), trust.version)
    authority.refresh()
    assert len(authority.bundle.roots) == len(authority.bundle.crls) == 2
    assert openssl_accepts(place.directory, good, authority)
    assert not openssl_accepts(place.directory, bad, authority)
    signing = replace(state, phase=Phase.SIGN)
    place.store.replace(documents_of(authority.trust, signing), authority.trust.version)
    authority.refresh()
    of_the_new_root = issue(issuance)
    assert of_the_new_root.intermediate_pem != good.intermediate_pem
    assert openssl_accepts(place.directory, of_the_new_root, authority)
    assert not openssl_accepts(place.directory, bad, authority)


@pytest.mark.parametrize("by", ["serial", "pod", "identity"])
def test_a_compromised_key_is_not_certified_again(place: Place, by: str) -> None:
    """To nobody, by no replica, whichever of them issued the certificate and whichever was told."""
    (_, issuance, _), (other, others, telling) = place.replica("one"), place.replica("two")
    csr = new_key_request().csr_pem
    bad = issue(issuance, csr=csr)
    wish = {"serial": {"serial": bad.serial}, "pod": {"pod": "shop/web-1"}, "identity": {"identity": str(WEB)}}[by]
    told = (("serials", ((bad.serial, bad.not_after),)),) if by != "serial" else ()
    telling.carry_out(Wish("revoke", reason="keyCompromise", **wish, **dict(told)), "somebody")  # type: ignore[arg-type]
    issuance._authority.refresh()  # as its watch would have it do: it alone knows the key
    other.refresh()
    somebody = Identity("cluster.local", "shop", "other")
    for replica in (issuance, others):
        with pytest.raises(Forbidden, match="this key is compromised"):
            issue(replica, identity=somebody, csr=csr)
        assert issue(replica, identity=somebody).serial
    telling.carry_out(
        Wish("restore", identity=wish.get("identity", ""), serial="" if by == "identity" else bad.serial), "x"
    )
    issuance._authority.refresh()
    assert issue(issuance, identity=somebody, csr=csr).serial


def test_another_reason_says_nothing_about_the_key(place: Place) -> None:
    _, issuance, revoking = place.replica("one")
    csr = new_key_request().csr_pem
    bad = issue(issuance, csr=csr)
    revoking.carry_out(Wish("revoke", serial=bad.serial, reason="superseded"), "somebody")
    assert issue(issuance, csr=csr).serial

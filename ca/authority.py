"""The trust domain's keys at work: the root encrypted, opened only to sign an intermediate; that in memory only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ca.crl import may_list, revocation_list
from ca.federation import Federation, federation_of
from ca.kubernetes_signer import KubernetesSigner
from ca.pkcs11 import is_in_token
from ca.profile import intermediate_certificate
from ca.revocation import Revocations, revocations_of
from ca.root_document import signer_of
from ca.root_import import ImportedRoot
from ca.settings import HOUR, CaSettings
from ca.sign import Issuer, issuer_of
from ca.signature import IssuerKey
from ca.store import Store
from ca.trust import Trust, certificate_of, new_serial, open_trust, roots_with_keys, trust_elsewhere, trust_from
from mesh.errors import Conflict, HeddleError, Unavailable
from svid.material import TrustBundle

RETRY_SECONDS = 60.0

log = structlog.get_logger("ca")


@dataclass(frozen=True, slots=True)
class SigningIssuer:
    """An intermediate: the template of its leaves, its certificate as PEM, its serial, its key, and whose it is."""

    issuer: Issuer
    pem: str
    serial: str
    key: IssuerKey
    root: str  # serial of the root that it leads to
    signed_by: str  # that root's fingerprint: SHA-256, hexadecimal
    imported: bool = False  # its root's key is elsewhere, so that none can be made in its place


class Authority:
    """Opens (or makes) the root in `store` and signs an intermediate with it.

    It signs another when the one in use is half over.
    """

    def __init__(
        self,
        store: Store,
        read_passphrase: Callable[[], bytes],
        settings: CaSettings,
        now: Callable[[], float],
        elsewhere: KubernetesSigner | None = None,
    ) -> None:
        """`read_passphrase` is called for every use of the root key, so that neither stays in memory.

        `elsewhere` signs intermediates where no root key is in `store`; Unavailable while it has not signed.
        """
        self._store = store
        self._read_passphrase = read_passphrase
        self._settings = settings
        self._now = now
        self._listeners: list[Callable[[TrustBundle], object]] = []
        self._trust_listeners: list[Callable[[Trust], object]] = []
        self._renewing = threading.Lock()
        self._not_before_retry = 0.0
        self._elsewhere = elsewhere
        if elsewhere is None:
            self._trust = open_trust(store, read_passphrase, settings, now())
        else:
            self._trust = trust_elsewhere(store, elsewhere.roots_pem, settings.trust_domain)
        self._issuer = self._new_issuer(self._trust)
        self._revocations = revocations_of(self._trust.others)
        self._federation = federation_of(self._trust.others)
        self._bundle = self._with_others(self._with_lists(self._trust, self._revocations), self._federation)

    @property
    def bundle(self) -> TrustBundle:
        """What everyone trusts, and what they do not although a root of theirs leads to it."""
        return self._bundle

    @property
    def revocations(self) -> Revocations:
        """What has been revoked."""
        return self._revocations

    @property
    def federation(self) -> Federation:
        """The other trust domains that are trusted."""
        return self._federation

    @property
    def trust(self) -> Trust:
        """The state as it was read last."""
        return self._trust

    @property
    def signs(self) -> str:
        """The fingerprint of the root whose intermediate signs now."""
        return self._issuer.signed_by

    def on_trust(self, listener: Callable[[Trust], object]) -> None:
        """Call `listener` whenever anything of the state has changed, from the thread that called `refresh`."""
        self._trust_listeners.append(listener)

    def on_bundle(self, listener: Callable[[TrustBundle], object]) -> None:
        """Call `listener` whenever the bundle has changed, from the thread that called `refresh`."""
        self._listeners.append(listener)

    def issuer(self, longest_leaf: int) -> SigningIssuer:
        """The intermediate to sign with now. It outlives `longest_leaf` seconds unless the root ends first.

        When no new one can be made, the one in use serves while it lasts. Raises Unavailable or MissingPrerequisite.
        """
        if self._due(longest_leaf):
            with self._renewing:
                if self._due(longest_leaf):
                    self._renew()
        return self._issuer

    def is_ready(self, longest_leaf: int) -> bool:
        """Whether `issuer` has its answer at hand, and signing by it needs nobody else."""
        return not self._due(longest_leaf) and not is_in_token(self._issuer.key)

    def replace_issuer(self) -> tuple[SigningIssuer, SigningIssuer]:
        """Sign with another intermediate from now on: the old one, and the new. Conflict where it was imported."""
        with self._renewing:
            old = self._issuer
            if old.imported:
                raise Conflict(
                    "the intermediate was imported, and its root's key is not here to sign another",
                    hint="issue one where the root is, and import that: scripts/import-root",
                )
            self._issuer = self._new_issuer(self._trust)
            log.info("another intermediate signs", old=old.serial, new=self._issuer.serial)
            return old, self._issuer

    def refresh(self) -> None:
        """Take up what the store holds by now: another bundle, another root. Where it was removed, it is put back.

        Raises what reading raises; then nothing has changed here.
        """
        with self._renewing:
            stored = self._store.read()
            if stored is None:
                log.error("the root was removed, and is put back", where=self._store.name)
                stored = self._store.create(self._trust.documents())
            if stored.version == self._trust.version:
                return
            trust = trust_from(stored, self._store.name, self._settings.trust_domain)
            old = self._trust
            if trust.bundle != old.bundle and trust.bundle.sequence <= old.bundle.sequence:
                raise Conflict(
                    f"{self._store.name} holds another bundle that is not later than ours "
                    f"(sequence {trust.bundle.sequence}, ours {old.bundle.sequence})",
                    hint="it was not made from ours; to take it up all the same, restart every replica",
                )
            revocations = revocations_of(trust.others)
            if trust.root_pem != old.root_pem:
                self._issuer = self._new_issuer(trust)
            federation = federation_of(trust.others)
            known = (old.bundle, self._revocations, self._federation.roots)
            changed = (trust.bundle, revocations, federation.roots) != known
            if changed:
                self._bundle = self._with_others(self._with_lists(trust, revocations), federation)
            self._trust, self._revocations, self._federation = trust, revocations, federation
        if changed:
            log.info(
                "the trust bundle has changed",
                sequence=trust.bundle.sequence,
                roots=len(trust.bundle.roots),
                revision=self._bundle.revision,
                federated=[each.trust_domain for each in self._bundle.federated],
            )
            for listener in self._listeners:
                listener(self._bundle)
        for told in self._trust_listeners:
            told(trust)

    def _with_lists(self, trust: Trust, revocations: Revocations) -> TrustBundle:
        """The bundle with a revocation list of each root, if anything is revoked.

        All or none: by one list, a proxy refuses whatever leads to a root that has none.
        """
        bundle = replace(trust.bundle, revision=revocations.number)
        if not any(True for _ in revocations.serials()):
            return bundle
        try:
            signers = [signer_of(pem, self._read_passphrase(), self._store.name) for pem in roots_with_keys(trust)]
            lists = {each.root: revocation_list(each.root, each.key, revocations) for each in signers if may_list(each)}
            return replace(bundle, crls=tuple(lists[certificate_of(root, "the bundle")] for root in bundle.roots))
        except HeddleError as error:
            log.error("no revocation list can be signed: what is revoked stays trusted until it ends", error=str(error))
        except KeyError:
            log.error(
                "a root signs no revocation lists, so there are none: what is revoked stays trusted until it ends"
            )
        return bundle

    @staticmethod
    def _with_others(bundle: TrustBundle, federation: Federation) -> TrustBundle:
        return replace(bundle, revision=bundle.revision + federation.number, federated=federation.roots)

    def _due(self, longest_leaf: int) -> bool:
        issuer, now = self._issuer.issuer, self._now()
        if self._issuer.imported:
            return False
        if now < issuer.not_before:  # the clock went back: what it signs now would not be valid yet
            return True
        if now < self._not_before_retry <= now + RETRY_SECONDS:
            return False
        half = issuer.not_before + (issuer.not_after - issuer.not_before) // 2
        return now >= half or now + longest_leaf + HOUR > issuer.not_after

    def _renew(self) -> None:
        try:
            self._issuer = self._new_issuer(self._trust)
        except HeddleError as error:
            issuer, now = self._issuer.issuer, self._now()
            if not issuer.not_before <= now <= issuer.not_after - self._settings.min_ttl:
                raise
            self._not_before_retry = now + RETRY_SECONDS
            log.error("no new intermediate, the one in use goes on", error=str(error), ends=issuer.not_after)

    def _new_issuer(self, trust: Trust) -> SigningIssuer:
        settings, now = self._settings, int(self._now())
        if self._elsewhere is not None:
            return self._issuer_from(self._elsewhere.intermediate())
        signer = signer_of(trust.root_pem, self._read_passphrase(), self._store.name)
        root, root_key = signer.root, signer.key
        self.root_not_after = root_end = int(root.not_valid_after_utc.timestamp())
        if now + settings.min_ttl > root_end:
            raise Unavailable("the root certificate has ended", hint="rotate the root")
        fingerprint = root.fingerprint(hashes.SHA256()).hex()
        if signer.chain:
            certificate, above = signer.chain[0], f"{root.serial_number:x}"
            serial = f"{certificate.serial_number:x}"
            return SigningIssuer(
                issuer_of(certificate), signer.chain_pem, serial, root_key, above, fingerprint, imported=True
            )
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = intermediate_certificate(
            key.public_key(),
            root,
            root_key,
            settings.trust_domain,
            new_serial(),
            max(now - settings.backdate, int(root.not_valid_before_utc.timestamp())),
            min(now + settings.intermediate_ttl, root_end),
            settings.control_namespace,
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
        return SigningIssuer(
            issuer_of(certificate),
            pem,
            f"{certificate.serial_number:x}",
            key,
            root=f"{root.serial_number:x}",
            signed_by=fingerprint,
        )

    def _issuer_from(self, signed: ImportedRoot) -> SigningIssuer:
        """The issuer that somebody else has signed for this process."""
        self.root_not_after = int(signed.root.not_valid_after_utc.timestamp())
        chain = "".join(each.public_bytes(serialization.Encoding.PEM).decode() for each in signed.chain)
        return SigningIssuer(
            issuer_of(signed.chain[0]),
            chain,
            f"{signed.chain[0].serial_number:x}",
            signed.key,
            root=f"{signed.root.serial_number:x}",
            signed_by=signed.root.fingerprint(hashes.SHA256()).hex(),
        )

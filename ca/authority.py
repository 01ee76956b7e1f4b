"""The trust domain's keys: the root on disk, encrypted; the intermediate in memory only.

State directory:
    root.pem      the encrypted root key (PKCS #8) and the root certificate; one file, so that both appear at once
    bundle.json   {"trustDomain", "sequence", "roots"}: what everyone trusts
    roots.pem     the roots alone, for those who have only a file to look at

Files appear whole, by link(2) or rename(2); whoever comes second finds the first one's, so two replicas make one root.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ca.profile import intermediate_certificate, root_certificate
from ca.settings import HOUR, CaSettings
from ca.sign import Issuer, issuer_of
from mesh.errors import HeddleError, InvalidInput, MissingPrerequisite, Unavailable
from svid.material import TrustBundle, bundle_from_json

_PEM = serialization.Encoding.PEM


def new_serial() -> int:
    """128 random bits, the highest set so that the number is never short (127 bits of entropy)."""
    return secrets.randbits(127) | 1 << 127


@dataclass(frozen=True, slots=True)
class SigningIssuer:
    """An intermediate: the template of its leaves, its certificate as PEM, its serial, and its key."""

    issuer: Issuer
    pem: str
    serial: str
    key: ec.EllipticCurvePrivateKey


class Authority:
    """Opens (or makes) the root and signs an intermediate with it; another whenever the one in use is half over."""

    def __init__(
        self, directory: Path, read_passphrase: Callable[[], bytes], settings: CaSettings, now: Callable[[], float]
    ) -> None:
        """`read_passphrase` is called for every use of the root key, so that neither stays in memory."""
        self._directory = directory
        self._read_passphrase = read_passphrase
        self._settings = settings
        self._now = now
        self._renewing = threading.Lock()
        make_root(directory, read_passphrase, settings, now())
        self.bundle = load_bundle(directory)
        if self.bundle.trust_domain != settings.trust_domain:
            raise InvalidInput(
                f"{directory} holds the root of trust domain {self.bundle.trust_domain}, not {settings.trust_domain}",
                field="trustDomain",
                hint="a trust domain keeps its name; start a new one in an empty directory",
            )
        self._issuer = self._new_issuer()

    def issuer(self, longest_leaf: int) -> SigningIssuer:
        """The intermediate to sign with now. It outlives `longest_leaf` seconds unless the root ends first."""
        if self._due(longest_leaf):
            with self._renewing:
                if self._due(longest_leaf):
                    self._issuer = self._new_issuer()
        return self._issuer

    def _due(self, longest_leaf: int) -> bool:
        issuer, now = self._issuer.issuer, self._now()
        if now < issuer.not_before:  # the clock went back: what it signs now would not be valid yet
            return True
        half = issuer.not_before + (issuer.not_after - issuer.not_before) // 2
        return now >= half or now + longest_leaf + HOUR > issuer.not_after

    def _new_issuer(self) -> SigningIssuer:
        settings, now = self._settings, int(self._now())
        root, root_key = _open_root(self._directory, self._read_passphrase())
        self.root_not_after = root_end = int(root.not_valid_after_utc.timestamp())
        if now + settings.min_ttl > root_end:
            raise Unavailable("the root certificate has ended", hint="rotate the root")
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = intermediate_certificate(
            key.public_key(),
            root,
            root_key,
            settings.trust_domain,
            new_serial(),
            max(now - settings.backdate, int(root.not_valid_before_utc.timestamp())),
            min(now + settings.intermediate_ttl, root_end),
        )
        pem = certificate.public_bytes(_PEM).decode()
        return SigningIssuer(issuer_of(certificate), pem, f"{certificate.serial_number:x}", key)


def make_root(directory: Path, read_passphrase: Callable[[], bytes], settings: CaSettings, now: float) -> None:
    """Make root.pem, bundle.json and roots.pem where they are not there yet."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (directory / "root.pem").exists():
            _create(directory / "root.pem", _new_root(read_passphrase(), settings, int(now)))
        root = _certificate_of(directory / "root.pem")
        bundle = TrustBundle(settings.trust_domain, 1, (root.public_bytes(_PEM).decode(),))
        _create(directory / "bundle.json", json.dumps(bundle_json(bundle), indent=1).encode() + b"\n")
        _replace(directory / "roots.pem", load_bundle(directory).pem.encode())
    except OSError as error:
        raise MissingPrerequisite(
            f"the ca's state in {directory} cannot be written: {error.strerror}",
            field="state",
            hint="name a directory on a volume that this user may write to",
        ) from None


def load_bundle(directory: Path) -> TrustBundle:
    """bundle.json."""
    try:
        return bundle_from_json(json.loads((directory / "bundle.json").read_bytes()))
    except (OSError, ValueError, HeddleError) as error:
        raise MissingPrerequisite(f"{directory / 'bundle.json'} cannot be read: {error}") from None


def bundle_json(bundle: TrustBundle) -> dict[str, object]:
    """The trust bundle as it goes over the wire and into bundle.json."""
    return {"trustDomain": bundle.trust_domain, "sequence": bundle.sequence, "roots": list(bundle.roots)}


def passphrase_from(path: Path, *, create: bool) -> bytes:
    """The passphrase in `path`; with `create`, a random one is put there (mode 0600) if there is no such file."""
    try:
        if create and not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _create(path, secrets.token_urlsafe(32).encode() + b"\n")
        passphrase = path.read_bytes().strip()
    except OSError as error:
        raise MissingPrerequisite(
            f"the root key's passphrase cannot be read from {path}: {error.strerror}", field="rootPassphraseFile"
        ) from None
    if len(passphrase) < 16:
        raise InvalidInput(
            f"the passphrase in {path} has {len(passphrase)} bytes",
            field="rootPassphraseFile",
            hint="use at least 16, such as `openssl rand -base64 32` writes",
        )
    return passphrase


def _new_root(passphrase: bytes, settings: CaSettings, now: int) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = root_certificate(
        key, settings.trust_domain, new_serial(), now - settings.backdate, now + settings.root_ttl
    )
    encrypted = key.private_bytes(
        _PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(passphrase)
    )
    return encrypted + certificate.public_bytes(_PEM)


def _open_root(directory: Path, passphrase: bytes) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    path = directory / "root.pem"
    certificate = _certificate_of(path)
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), passphrase)
    except (OSError, ValueError, TypeError) as error:
        raise MissingPrerequisite(
            f"the root key in {path} cannot be opened: {error}",
            field="rootPassphraseFile",
            hint="is it the passphrase that this root was made with?",
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise MissingPrerequisite(f"the key in {path} is not that of the certificate beside it")
    return certificate, key


def _certificate_of(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise MissingPrerequisite(f"the root certificate in {path} cannot be read: {error}") from None


def _create(path: Path, content: bytes) -> None:
    """Write `path`, mode 0600, unless it is there. It appears whole or not at all, also after a crash."""
    temporary = _written(path, content, 0o600)
    try:
        with suppress(FileExistsError):
            os.link(temporary, path)
        _sync_directory(path.parent)
    finally:
        temporary.unlink()


def _replace(path: Path, content: bytes) -> None:
    with suppress(OSError):
        if path.read_bytes() == content:
            return
    os.replace(_written(path, content, 0o644), path)
    _sync_directory(path.parent)


def _written(path: Path, content: bytes, mode: int) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return temporary


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

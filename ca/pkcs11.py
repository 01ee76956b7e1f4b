"""A root key in a PKCS #11 token: made there, used there, never outside.

Where other documents have an encrypted key, that of such a root has a PKCS #11 URI (RFC 7512), which names token and
object; the module is what this process was started with, and the PIN comes from the passphrase file. `python-pkcs11` is
an extra (`heddle[pkcs11]`), imported when a token is configured.
Sources: PKCS #11 version 3.0 (OASIS), RFC 7512, RFC 3279 section 2.2.3 (ECDSA-Sig-Value).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn
from urllib.parse import quote, unquote

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

from ca.settings import RootToken
from mesh.errors import MissingPrerequisite

SCHEME = "pkcs11:"
_using = threading.Lock()  # one session at a time: keys are used seldom, and not every module bears threads


_process: dict[str, Any] = {"module": "", "pid": 0}  # PKCS #11 knows one state for the whole process


def use_module(path: str) -> None:
    """Which module URIs refer to, from now on. MissingPrerequisite when it cannot be loaded."""
    _process["module"] = path
    _library()


def forget_module() -> None:
    """Finish with the module: whoever uses it next begins anew, with the tokens that are there by then."""
    if _process["pid"] == os.getpid():
        _library().finalize()
    _process.update(module="", pid=0)


def new_key(token: RootToken, pin: bytes, name: str) -> tuple[ec.EllipticCurvePrivateKey, str]:
    """A new P-256 key called `name` in `token`, which does not let it out; and its URI."""
    uri = f"{SCHEME}token={quote(token.label)};object={quote(name)};type=private"
    with _session(token.label, pin) as (pkcs11, session):
        from pkcs11.util.ec import encode_named_curve_parameters

        curve = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
        parameters = session.create_domain_parameters(pkcs11.KeyType.EC, curve, local=True)
        kept = {pkcs11.Attribute.SENSITIVE: True, pkcs11.Attribute.EXTRACTABLE: False}
        parameters.generate_keypair(store=True, label=name, private_template=kept)
    return key_at(uri, pin), uri


def key_at(uri: str, pin: bytes) -> ec.EllipticCurvePrivateKey:
    """The key that `uri` names. MissingPrerequisite when it cannot be reached."""
    token, name = _parsed(uri)
    with _session(token, pin) as (pkcs11, session):
        try:
            public = session.get_key(object_class=pkcs11.ObjectClass.PUBLIC_KEY, label=name)
            from pkcs11.util.ec import encode_ec_public_key

            der = encode_ec_public_key(public)
        except (pkcs11.NoSuchKey, pkcs11.MultipleObjectsReturned) as error:
            raise _unreachable(uri, type(error).__name__) from None
    key = serialization.load_der_public_key(der)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise _unreachable(uri, "it is not an elliptic curve key")
    return _TokenKey(uri, pin, key)


def is_in_token(key: object) -> bool:
    """Whether each use of this key asks a token, which may take its time."""
    return isinstance(key, _TokenKey)


def destroy(uri: str, pin: bytes) -> None:
    """Remove both halves of the key from its token."""
    token, name = _parsed(uri)
    with _session(token, pin) as (pkcs11, session):
        for each in list(session.get_objects({pkcs11.Attribute.LABEL: name})):
            each.destroy()


class _TokenKey(ec.EllipticCurvePrivateKey):
    """What `cryptography` needs to have a certificate signed."""

    def __init__(self, uri: str, pin: bytes, public: ec.EllipticCurvePublicKey) -> None:
        self._uri, self._pin, self._public = uri, pin, public

    def __repr__(self) -> str:
        return f"<key in a token: {self._uri}>"

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._public.curve

    @property
    def key_size(self) -> int:
        return self._public.key_size

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._public

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        algorithm = signature_algorithm.algorithm
        if isinstance(algorithm, Prehashed):
            digest = bytes(data)
        else:
            hasher = hashes.Hash(algorithm)
            hasher.update(data)
            digest = hasher.finalize()
        token, name = _parsed(self._uri)
        with _session(token, self._pin) as (pkcs11, session):
            try:
                key = session.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, label=name)
            except (pkcs11.NoSuchKey, pkcs11.MultipleObjectsReturned) as error:
                raise _unreachable(self._uri, type(error).__name__) from None
            raw = key.sign(digest, mechanism=pkcs11.Mechanism.ECDSA)
        half = len(raw) // 2
        return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> NoReturn:
        raise _stays()

    def private_numbers(self) -> NoReturn:
        raise _stays()

    def private_bytes(self, *_arguments: object) -> NoReturn:
        raise _stays()

    def __copy__(self) -> _TokenKey:
        return self

    def __deepcopy__(self, _memo: dict[int, Any]) -> _TokenKey:
        return self


def _library() -> Any:
    path = _process["module"]
    if not path:
        raise MissingPrerequisite(
            "the root key is in a PKCS #11 token, and no module is named", hint="start the ca with --root-pkcs11-module"
        )
    try:
        import pkcs11
    except ImportError:
        raise MissingPrerequisite("python-pkcs11 is not installed", hint="pip install 'heddle[pkcs11]'") from None
    try:
        library = pkcs11.lib(path)
        if _process["pid"] not in (0, os.getpid()):
            library.reinitialize()  # after a fork, the module's state is not the child's (PKCS #11, C_Initialize)
    except (pkcs11.PKCS11Error, RuntimeError) as error:
        raise MissingPrerequisite(
            f"the PKCS #11 module {path} cannot be used: {error or type(error).__name__}", field="rootPkcs11Module"
        ) from None
    _process["pid"] = os.getpid()
    return library


@contextmanager
def _session(token: str, pin: bytes) -> Iterator[tuple[Any, Any]]:
    """The package, and a session that is logged in; every error of the token as MissingPrerequisite."""
    with _using:
        library = _library()
        import pkcs11

        try:
            place = library.get_token(token_label=token)
            with place.open(rw=True, user_pin=pin.decode()) as session:
                yield pkcs11, session
        except (pkcs11.PKCS11Error, UnicodeDecodeError) as error:
            raise MissingPrerequisite(
                f"the token {token!r} cannot be used: {error or type(error).__name__}",
                field="rootPassphraseFile",
                hint="is it there, and is the PIN the one in the passphrase file?",
            ) from None


def _parsed(uri: str) -> tuple[str, str]:
    """Label of the token, label of the object."""
    parts = dict(part.partition("=")[::2] for part in uri.strip().removeprefix(SCHEME).split(";"))
    if not parts.get("token") or not parts.get("object"):
        raise _unreachable(uri, "it does not name token and object")
    return unquote(parts["token"]), unquote(parts["object"])


def _unreachable(uri: str, why: str) -> MissingPrerequisite:
    return MissingPrerequisite(f"the root key {uri.strip()} cannot be reached: {why}", field="rootPkcs11Token")


def _stays() -> TypeError:
    return TypeError("a key in a token does not leave it")

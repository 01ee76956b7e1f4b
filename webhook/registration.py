"""The webhook's entries at the API server: whose pods are sent here, and the roots by which it trusts this webhook.

`caBundle` holds every root of the trust bundle, the old and the new one while a root is replaced, so that no moment
exists in which a certificate that is shown does not verify: a root is written before a certificate of it is shown
(`trust`), and goes only with a later bundle that lacks it. Every replica writes, each the same: nobody is elected.

An entry is this webhook's when its configuration is labelled with the revision, and its name is of Heddle's.
Source: Kubernetes' "Dynamic Admission Control", section "Contacting the webhook".
"""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import structlog

from kube.client import Client
from kube.source import Changed, Event, Listed, Watched, backoff, list_path, number
from mesh.annotations import REVISION
from mesh.errors import HeddleError
from svid.material import SvidMaterial

ENTRY_SUFFIXES = (".sidecar-injector.heddle.dev", ".validation.heddle.dev")
SEQUENCE = "heddle.dev/bundle-sequence"
MANAGER = "heddle-webhook"
LOOK_EVERY = 10.0  # seconds between two looks at roots that come from a file
SETTLE_SECONDS = 5.0
"""How long after a new root was written a certificate of it is shown: API servers follow their own watch."""
TRUST_SECONDS = 30.0
"""How long a new certificate waits for its root to be written. Then it is shown, before the old one ends."""

_GROUP = "admissionregistration.k8s.io"
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\s.*?-----END CERTIFICATE-----", re.DOTALL)

Raw = Mapping[str, Any]
log = structlog.get_logger("webhook")


@dataclass(frozen=True, slots=True)
class Configurations:
    """A kind of webhook configurations, and where all of them are."""

    kind: str
    path: str


MUTATING, VALIDATING = (
    Configurations(f"{word}WebhookConfiguration", list_path(_GROUP, "v1", f"{word.lower()}webhookconfigurations"))
    for word in ("Mutating", "Validating")
)
_PATHS = {each.kind: each.path for each in (MUTATING, VALIDATING)}


def watched(revision: str) -> tuple[Watched, ...]:
    """What to give to a `kube.source.Source`."""
    return tuple(Watched(kind, path, {"labelSelector": f"{REVISION}={revision}"}) for kind, path in _PATHS.items())


def certificates(pem: str) -> tuple[str, ...]:
    """The certificates in a PEM text, each once, without what stands between them."""
    return tuple(dict.fromkeys(re.sub(r"\s*\n\s*", "\n", found) for found in _PEM.findall(pem)))


def entries_of(configuration: Raw) -> Iterator[Raw]:
    """The entries that send to this webhook."""
    for entry in configuration.get("webhooks") or ():
        if str(entry.get("name", "")).endswith(ENTRY_SUFFIXES):
            yield entry


def revisions_of(configurations: Iterable[Raw]) -> frozenset[str]:
    """The values of `istio.io/rev` for which the API server sends pods here: the revision's own, and its tags'."""
    return frozenset(
        value
        for configuration in configurations
        for entry in entries_of(configuration)
        for selector in ("namespaceSelector", "objectSelector")
        for wanted in (entry.get(selector) or {}).get("matchExpressions") or ()
        if wanted.get("key") == REVISION and wanted.get("operator") == "In"
        for value in wanted.get("values") or ()
    )


@dataclass(frozen=True, slots=True)
class Trust:
    """What the API server has to trust: `roots` of bundle `sequence`, of which `own` is that of the certificate shown.

    `owed`: this replica added its own root while it was behind, and has since heard of the bundle that was written.
    """

    roots: tuple[str, ...]
    sequence: int
    own: tuple[str, ...]
    owed: bool = False


def patch_of(configuration: Raw, trust: Trust) -> dict[str, Any] | None:
    """The strategic merge patch that makes every entry trust what it has to; None when nothing has to be written.

    A later bundle than the one that was written last replaces what is there. Otherwise roots are only added: all of the
    same bundle, and of an earlier one the root without which this replica's own certificate would not verify.
    """
    if not trust.roots:
        return None
    meta = configuration["metadata"]
    written = written_sequence(configuration)
    later = trust.sequence > written
    entries = []
    for entry in entries_of(configuration):
        there = _trusted(entry)
        if later or (trust.owed and trust.sequence == written):
            wanted = trust.roots
        else:
            needed = trust.roots if trust.sequence == written else trust.own
            wanted = tuple(dict.fromkeys((*there, *needed)))
        if set(wanted) != set(there):
            pem = "".join(f"{root}\n" for root in wanted)
            bundle = base64.b64encode(pem.encode()).decode()
            entries.append({"name": entry["name"], "clientConfig": {"caBundle": bundle}})
    if not entries and not (later and any(True for _ in entries_of(configuration))):
        return None
    annotations = {SEQUENCE: str(trust.sequence)} if later else {}
    # With the version, so that a patch made from what is no longer so is refused, and made again.
    of_object = {"resourceVersion": meta.get("resourceVersion", ""), "annotations": annotations}
    return {"metadata": of_object, **({"webhooks": entries} if entries else {})}


def written_sequence(configuration: Raw) -> int:
    """The number of the bundle that was written last; -1 before the first."""
    noted = (configuration["metadata"].get("annotations") or {}).get(SEQUENCE, "")
    return int(noted) if noted.isdecimal() else -1


def trust_of(material: SvidMaterial) -> Trust:
    """What it takes for the certificate of `material` to verify, now and after the next renewals."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    roots = certificates(material.bundle.pem)
    last = x509.load_pem_x509_certificates(material.chain_pem)[-1]
    own = []
    for root in roots:
        try:
            last.verify_directly_issued_by(x509.load_pem_x509_certificate(root.encode()))
            own.append(root)
        except (ValueError, TypeError, InvalidSignature):
            continue
    return Trust(roots, material.bundle.sequence, tuple(own) or roots)


def _version(configuration: Raw) -> int:
    return number(configuration["metadata"].get("resourceVersion", ""))


def _trusted(entry: Raw) -> tuple[str, ...]:
    encoded = (entry.get("clientConfig") or {}).get("caBundle") or ""
    try:
        return certificates(base64.b64decode(encoded, validate=True).decode())
    except ValueError:
        return ()  # nothing that could be kept


class Registration:
    """`on_event` is a Source's listener. `mounted` reads the roots (PEM) of a certificate that comes from files, and
    counts until `trust` is called. `on_revisions` hears of the values of `istio.io/rev` that lead here."""

    def __init__(
        self,
        client: Client,
        revision: str,
        mounted: Callable[[], str],
        on_revisions: Callable[[frozenset[str]], None],
        *,
        synced: Callable[[], bool] = lambda: True,
        on_write: Callable[[], None] = lambda: None,
        settle: float = SETTLE_SECONDS,
    ) -> None:
        self._client, self._revision, self._mounted = client, revision, mounted
        self._on_revisions, self._synced, self._on_write, self._settle = on_revisions, synced, on_write, settle
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], Raw] = {}  # by kind and name
        self._trust: Trust | None = None
        self._behind = False
        self._wake = threading.Event()
        self._stopping = False

    def start(self) -> None:
        """From now on, keep what is registered right, in a thread."""
        threading.Thread(target=self._run, name="registration", daemon=True).start()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    def on_event(self, event: Event) -> None:
        """A configuration of this revision is new, other than before, or gone."""
        with self._lock:
            if isinstance(event, Listed):
                self._known = {key: raw for key, raw in self._known.items() if key[0] != event.kind}
                self._known |= {(event.kind, raw["metadata"]["name"]): raw for raw in event.objects}
            elif isinstance(event, Changed) and event.deleted:
                self._known.pop((event.kind, event.object["metadata"]["name"]), None)
            elif isinstance(event, Changed):
                self._known[event.kind, event.object["metadata"]["name"]] = event.object
            else:
                return
        if event.kind == MUTATING.kind:
            self._on_revisions(revisions_of(self.configurations(MUTATING)))
        self._wake.set()

    def configurations(self, of: Configurations) -> list[Raw]:
        """Those of this revision, as they are now."""
        with self._lock:
            return [raw for (kind, _), raw in self._known.items() if kind == of.kind]

    def leads_here(self, revision: str) -> bool:
        """Asks the API server whether pods of `revision` are sent here, by a tag that the watch has not shown yet."""
        found = self._client.get(MUTATING.path, {"labelSelector": f"{REVISION}={self._revision}"})
        return revision in revisions_of(found.get("items") or ())

    def trust(self, material: SvidMaterial) -> None:
        """Returns when the API server trusts every root of the bundle, or does not let itself be told in time.

        To be called before the certificate is shown.
        """
        wanted = trust_of(material)
        with self._lock:
            self._trust = wanted
        end = time.monotonic() + TRUST_SECONDS
        in_use = False
        while time.monotonic() < end and not self._stopping:
            done, changed = self._reconcile()
            in_use = in_use or changed
            if done and self._synced():
                break
            time.sleep(0.1)
        if in_use:  # by webhooks with other certificates: the API servers must have heard of this one's root
            time.sleep(self._settle)

    def _run(self) -> None:
        failures = 0
        while not self._stopping:
            self._wake.wait(backoff(failures, 1.0) if failures else LOOK_EVERY)
            self._wake.clear()
            failures = 0 if self._reconcile()[0] else failures + 1

    def _wanted(self) -> Trust:
        with self._lock:
            trust, behind = self._trust, self._behind
        if trust is not None:
            return replace(trust, owed=behind)
        try:
            roots = certificates(self._mounted())
        except (OSError, UnicodeDecodeError):
            roots = ()  # they may still come
        return Trust(roots, 0, roots)

    def _reconcile(self) -> tuple[bool, bool]:
        """Whether all is right as far as is known, and whether roots were added to others that were there."""
        trust = self._wanted()
        with self._lock:
            known = list(self._known.items())
        done, changed = True, False
        for (kind, name), configuration in known:
            patch = patch_of(configuration, trust)
            if patch is None:
                continue
            try:
                self._write(kind, name, patch)
                changed = changed or ("webhooks" in patch and any(map(_trusted, entries_of(configuration))))
                self._behind = trust.sequence < written_sequence(configuration)
            except HeddleError as error:
                done = False
                if error.status != 409:  # changed meanwhile: the watch brings what it is now
                    log.warning("caBundle not written, will try again", error=str(error))
        return done, changed

    def _write(self, kind: str, name: str, patch: Raw) -> None:
        answer = self._client.call(
            "PATCH",
            f"{_PATHS[kind]}/{name}",
            query={"fieldManager": MANAGER},
            body=patch,
            content_type="application/strategic-merge-patch+json",
        )
        with self._lock:  # unless the watch has shown something later already
            known = self._known.get((kind, name))
            if known is not None and _version(known) < _version(answer):
                self._known[kind, name] = answer
        self._on_write()
        log.info("caBundle written", configuration=name)

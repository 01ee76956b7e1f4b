"""Keeps the state of `ca.federation` as the mesh's settings and the other trust domains' endpoints say.

Every replica looks at every endpoint; whoever finds something new stores it, and the others take it up from there.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

import structlog

from ca.authority import Authority
from ca.bundle_endpoint import fetch_foreign
from ca.federation import DOCUMENT, Federation, Foreign, arranged, federation_json, federation_of, taken
from ca.store import Store
from mesh.errors import Conflict, HeddleError, InvalidInput
from mesh.settings import parse_mesh_settings

LOOK_SECONDS = 5.0  # at the file of the mesh's settings
ATTEMPTS = 5

log = structlog.get_logger("ca")


class FederationKeeper:
    """`settings_file`: meshConfig as YAML, such as a mounted key of ConfigMap `istio`; read again when it changes."""

    def __init__(
        self, authority: Authority, store: Store, settings_file: Path, trust_domain: str, now: Callable[[], float]
    ) -> None:
        self._authority, self._store = authority, store
        self._file, self._trust_domain = settings_file, trust_domain
        self._now = now
        self._text: str | None = None
        self._due: dict[str, float] = {}  # trust domain -> when its endpoint is looked at next
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="federation", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """No more after what is being done."""
        self._stopping.set()

    def step(self) -> None:
        """Do what is due now. What fails is logged, and done again in its time."""
        self._arrange()
        federation = self._authority.federation
        for domain, foreign in federation.domains.items():
            if foreign.relationship.url and self._now() >= self._due.get(domain, 0.0):
                self._refresh(federation, foreign)
        self._due = {domain: at for domain, at in self._due.items() if domain in federation.domains}

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.step()
            except Exception:  # a bug in one look must not end the thread that would take the next
                log.exception("federation failed")
            self._stopping.wait(LOOK_SECONDS)

    def _arrange(self) -> None:
        try:
            text = self._file.read_text()
        except FileNotFoundError:
            text = ""
        except (OSError, UnicodeDecodeError) as error:
            log.error("the mesh's settings cannot be read; federation stays as it is", error=str(error))
            return
        if text == self._text:
            return
        try:
            settings = parse_mesh_settings(text)
            self._change(lambda known: arranged(known, settings, self._trust_domain))
        except HeddleError as error:
            log.error("other trust domains are not arranged as the mesh's settings say", error=str(error))
            if not isinstance(error, InvalidInput):
                return  # not the text's fault: it is tried again
        self._text = text

    def _refresh(self, federation: Federation, foreign: Foreign) -> None:
        relationship = foreign.relationship
        try:
            fetched = fetch_foreign(relationship, self._server_roots(federation, relationship.endpoint_id))
            self._change(lambda known: taken(known, fetched))
            foreign = self._authority.federation.domains.get(relationship.trust_domain, foreign)
        except HeddleError as error:
            log.warning("no new bundle", trust_domain=relationship.trust_domain, error=str(error))
        self._due[relationship.trust_domain] = self._now() + foreign.refresh * random.uniform(0.9, 1.1)  # noqa: S311

    def _server_roots(self, federation: Federation, endpoint_id: str) -> tuple[str, ...]:
        """The latest roots of the endpoint's own trust domain, which may be another than the bundle's."""
        domain = endpoint_id.removeprefix("spiffe://").partition("/")[0]
        if domain == self._trust_domain:
            return self._authority.bundle.roots
        foreign = federation.domains.get(domain)
        return foreign.roots if foreign else ()

    def _change(self, change: Callable[[Federation], Federation]) -> None:
        for _ in range(ATTEMPTS):
            self._authority.refresh()
            trust = self._authority.trust
            known = federation_of(trust.others)
            after = change(known)
            if after == known:
                return
            documents = {**trust.documents(), DOCUMENT: federation_json(after)}
            try:
                self._store.replace(documents, trust.version)
            except Conflict:
                continue  # somebody else changed something meanwhile
            log.info("other trust domains", number=after.number, trusted=[each.trust_domain for each in after.roots])
            self._authority.refresh()
            return
        raise Conflict("the state was changed by others again and again", hint="it is tried again")

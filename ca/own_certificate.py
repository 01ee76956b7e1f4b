"""The ca's own certificate: signed by itself, kept current, and put under every new connection."""

from __future__ import annotations

import ssl
from dataclasses import replace

from ca.issue import Issuance, issued_json
from ca.policy import Caller
from ca.request import parse_request
from ca.settings import CaSettings
from serving.certificate import SvidCertificate
from serving.impatient import make_impatient
from svid.keeper import OnChange
from svid.material import PodRef, SvidMaterial, material_from_response
from svid.request import new_key_request
from svid.tls import server_context

REQUEST_SECONDS = 10.0  # for all that one request sends, and for each step of a handshake


def own_certificate(
    issuance: Issuance, settings: CaSettings, on_change: OnChange, pod: PodRef | None = None
) -> SvidCertificate:
    """Not obtained yet, and not started. `pod` is the ca's own, where it has one."""
    place = (pod.namespace, pod.name, pod.uid) if pod else ()
    caller = Caller("self", settings.ca, *place)

    def obtain(_current: SvidMaterial | None) -> SvidMaterial:
        request = new_key_request()
        issued = issuance.issue(caller, parse_request(request.csr_pem), None)
        return material_from_response(request.key_pem, issued_json(issued))

    return SvidCertificate(obtain, _context, on_change)


def _context(material: SvidMaterial) -> ssl.SSLContext:
    # Who is revoked is told so in words, not by a broken handshake (`ca.issue`).
    material = replace(material, bundle=replace(material.bundle, crls=()))
    # Optional: callers with a token have no certificate. One that is shown must verify, or the handshake fails.
    return make_impatient(server_context(material, client_certificate=ssl.CERT_OPTIONAL), REQUEST_SECONDS)

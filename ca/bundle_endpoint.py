"""Fetches a SPIFFE bundle of another trust domain, by both profiles of the standard. Blocking, one request.

Source: SPIFFE Federation section 5.2 (https_web and https_spiffe), 5.2.1.4 and 5.2.2.4 (redirects).
"""

from __future__ import annotations

import http.client
import ssl
from typing import Any
from urllib.parse import urljoin, urlsplit

from ca.federation import Relationship
from mesh.errors import HeddleError, Unavailable
from svid.spiffe_bundle import SpiffeBundle, parse_spiffe_bundle
from svid.tls import client_context

TIMEOUT = 10.0  # seconds for each network operation
MAX_BUNDLE = 1 << 20
MAX_REDIRECTS = 3
_MOVED = (301, 302, 303, 307, 308)


def fetch_foreign(relationship: Relationship, server_roots: tuple[str, ...]) -> SpiffeBundle:
    """The bundle at `relationship.url`. `server_roots`: those of the endpoint's own trust domain (https_spiffe alone).

    Raises Unavailable when it cannot be had, InvalidInput when it is no bundle.
    """
    url = relationship.url
    for _ in range(MAX_REDIRECTS + 1):
        status, location, body = _get(url, relationship, server_roots)
        if status == 200:
            return parse_spiffe_bundle(body, relationship.trust_domain)
        if status not in _MOVED or not location:
            raise _failed(relationship, f"{url} answered {status}")
        url = urljoin(url, location)
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc:
            raise _failed(relationship, f"it was sent on to {url}, which no bundle endpoint may have as its address")
    raise _failed(relationship, f"it was sent on more than {MAX_REDIRECTS} times")


def _get(url: str, relationship: Relationship, server_roots: tuple[str, ...]) -> tuple[int, str, bytes]:
    parts = urlsplit(url)
    by_spiffe = bool(relationship.endpoint_id)
    if by_spiffe and not server_roots:
        raise _failed(relationship, f"no roots are known for its server, {relationship.endpoint_id}")
    context = client_context("\n".join(server_roots)) if by_spiffe else ssl.create_default_context()
    connection = http.client.HTTPSConnection(parts.hostname or "", parts.port or 443, timeout=TIMEOUT, context=context)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.connect()
        if by_spiffe:
            _check_server(connection.sock, relationship)
        connection.request("GET", path, headers={"Accept": "application/json"})
        response = connection.getresponse()
        body = response.read(MAX_BUNDLE + 1)
    except ssl.SSLCertVerificationError as error:
        raise _failed(relationship, f"the certificate of {url} does not verify: {error.verify_message}") from None
    except (OSError, http.client.HTTPException) as error:
        raise _failed(relationship, f"{url} does not answer: {error or type(error).__name__}") from None
    finally:
        connection.close()
    if len(body) > MAX_BUNDLE:
        raise _failed(relationship, f"{url} sent more than {MAX_BUNDLE} bytes")
    return response.status, response.getheader("Location", ""), body


def _check_server(connection: ssl.SSLSocket, relationship: Relationship) -> None:
    """The server's chain has been verified; its one URI must be the SPIFFE ID that was configured."""
    names: Any = (connection.getpeercert() or {}).get("subjectAltName", ())
    uris = [value for kind, value in names if kind == "URI"]
    if uris != [relationship.endpoint_id]:
        shown = ", ".join(map(str, uris)) or "nobody"
        raise _failed(relationship, f"the server is {shown}, and not {relationship.endpoint_id}")


def _failed(relationship: Relationship, why: str) -> HeddleError:
    return Unavailable(f"no bundle of {relationship.trust_domain}: {why}", hint="the last good one stays in force")

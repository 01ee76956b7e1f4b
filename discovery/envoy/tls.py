"""Transport sockets: mesh mutual TLS with SVIDs, TLS to services outside the mesh, TLS that gateways serve.

Mesh TLS is version 1.3 only, said explicitly: by default Envoy's client stops at 1.2. Keys, certificates and the trust
bundle come by SDS from the agent; what names a peer may carry is part of the configuration here.
"""

from __future__ import annotations

from collections.abc import Sequence

from discovery.envoy.values import Json
from discovery.plan.model import ClientTls, Destination, GatewayTls, Protocol, TlsMode
from mesh.sds import DEFAULT, ROOTCA, credential_ca_name, credential_name, secret_config

_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
_SYSTEM_ROOTS = "/etc/ssl/certs/ca-certificates.crt"

MESH_ALPN = ("istio-peer-exchange", "istio", "istio-http/1.0", "istio-http/1.1", "istio-h2")
"""What clients of a mesh (Heddle's and Istio's) offer: it tells mesh TLS from an app's own."""
_OFFER = ["istio"]
_OFFER_HTTP2 = ["istio", "h2"]
_SERVE_HTTP = ["h2", "http/1.1"]

RAW = {
    "name": "envoy.transport_sockets.raw_buffer",
    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"},
}
_MESH_VERSIONS = {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"}
_VERSIONS = {"TLSV1_0": "TLSv1_0", "TLSV1_1": "TLSv1_1", "TLSV1_2": "TLSv1_2", "TLSV1_3": "TLSv1_3"}


def mesh_client(destination: Destination, tls: ClientTls, trust_domains: Sequence[str]) -> Json:
    """Mesh mutual TLS to `destination`: own SVID shown, the server's checked against the roots and its identities."""
    common = _mesh_context(_names(tls.server_identities, trust_domains))
    common["alpn_protocols"] = _OFFER_HTTP2 if destination.protocol is Protocol.HTTP2 else _OFFER
    return _socket("UpstreamTlsContext", {"common_tls_context": common, "sni": tls.sni or mesh_sni(destination.name)})


def mesh_server(trust_domains: Sequence[str], *, http: bool) -> Json:
    """Mesh mutual TLS as a server: all of the trust domains may connect; what it may do is policy's business."""
    common = _mesh_context(_names((), trust_domains))
    if http:
        common["alpn_protocols"] = _SERVE_HTTP
    return _socket("DownstreamTlsContext", {"common_tls_context": common, "require_client_certificate": True})


def mesh_sni(destination: str) -> str:
    """Istio's SNI of a destination: `outbound_.9080_.v1_.reviews.default.svc.cluster.local`."""
    return destination.replace("|", "_.")


def plain_client(destination: Destination, tls: ClientTls) -> Json:
    """TLS as any client (SIMPLE, and MUTUAL with files), 1.2 or 1.3. Without a CA file: the system's roots.

    A certificate's names are checked when `subject_alt_names` says which; HTTP destinations without an SNI take SNI and
    expected name from the request's host (`auto_host`), as Istio does.
    """
    common: Json = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"}
    }
    if tls.mode is TlsMode.MUTUAL and tls.certificate_file:
        common["tls_certificates"] = [_certificate_files(tls.certificate_file, tls.private_key_file)]
    if not tls.skip_verification:
        validation: Json = {"trusted_ca": {"filename": tls.ca_file or _SYSTEM_ROOTS}}
        if tls.subject_alt_names:
            validation["match_typed_subject_alt_names"] = [
                {"san_type": kind, "matcher": {"exact": name}}
                for name in tls.subject_alt_names
                for kind in (("URI",) if "://" in name else ("DNS",))
            ]
        common["validation_context"] = validation
    if destination.protocol is Protocol.HTTP2:
        common["alpn_protocols"] = ["h2"]
    context: Json = {"common_tls_context": common}
    sni = tls.sni or ("" if destination.protocol.is_http else destination.host)
    if sni:
        context["sni"] = sni
    return _socket("UpstreamTlsContext", context)


def auto_host(destination: Destination, tls: ClientTls) -> Json | None:
    """`upstream_http_protocol_options` of HTTP destinations by TLS: SNI and expected names by the request's host."""
    if tls.mode not in (TlsMode.SIMPLE, TlsMode.MUTUAL) or tls.sni or not destination.protocol.is_http:
        return None
    verify = not tls.subject_alt_names and not tls.skip_verification
    return {"auto_sni": True, "auto_san_validation": True} if verify else {"auto_sni": True}


def gateway_server(tls: GatewayTls, trust_domains: Sequence[str], *, http: bool) -> Json:
    """TLS that a gateway terminates: by SDS secret, by files, or with its own SVID."""
    if tls.mesh:
        return mesh_server(trust_domains, http=http)
    common: Json = {
        "tls_params": {
            "tls_minimum_protocol_version": _VERSIONS.get(tls.min_version, "TLSv1_2"),
            "tls_maximum_protocol_version": _VERSIONS.get(tls.max_version, "TLSv1_3"),
        }
    }
    if http:
        common["alpn_protocols"] = _SERVE_HTTP
    if tls.credential:
        common["tls_certificate_sds_secret_configs"] = [secret_config(credential_name(tls.credential))]
        if tls.client_certificates:
            common["validation_context_sds_secret_config"] = secret_config(credential_ca_name(tls.credential))
    else:
        common["tls_certificates"] = [_certificate_files(tls.certificate_file, tls.private_key_file)]
        if tls.client_certificates:
            common["validation_context"] = {"trusted_ca": {"filename": tls.ca_file}}
    context: Json = {"common_tls_context": common, "require_client_certificate": tls.client_certificates}
    return _socket("DownstreamTlsContext", context)


def _mesh_context(names: list[Json]) -> Json:
    return {
        "tls_params": _MESH_VERSIONS,
        "tls_certificate_sds_secret_configs": [secret_config(DEFAULT)],
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": names},
            "validation_context_sds_secret_config": secret_config(ROOTCA),
        },
    }


def _names(identities: Sequence[str], trust_domains: Sequence[str]) -> list[Json]:
    if not identities:
        return [{"san_type": "URI", "matcher": {"prefix": f"spiffe://{domain}/"}} for domain in trust_domains]
    return [{"san_type": "URI", "matcher": {"exact": identity}} for identity in identities]


def _certificate_files(certificate: str, key: str) -> Json:
    return {"certificate_chain": {"filename": certificate}, "private_key": {"filename": key}}


def _socket(message: str, context: Json) -> Json:
    return {"name": "envoy.transport_sockets.tls", "typed_config": {"@type": _TLS + message, **context}}

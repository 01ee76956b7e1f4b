"""Text fields with a form that the API server can check too: hosts, namespaces, ports, names of headers.

The models' rules (`mesh.istio.rules`) check the same and more, with a sentence for each mistake.
"""

from __future__ import annotations

from typing import Annotated, Any

from mesh.istio.base import Int, Labels, Text
from mesh.istio.schema import Cel, Schema

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_PART = r"[A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?"
_NAME = rf"{_PART}(\.{_PART})*\.?"
_IPV6 = r"[0-9A-Fa-f.]*:[0-9A-Fa-f:.]+(%[0-9A-Za-z]+)?"
_PORT = "0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"

PROTOCOLS = ("HTTP", "HTTPS", "GRPC", "GRPC-WEB", "HTTP2", "MONGO", "MYSQL", "REDIS", "TCP", "TLS", "UDP")
"""Of services; those of gateways are fewer."""
HEADER = r"[-!#$%&'*+.^_`|~0-9A-Za-z]+"

ONCE = Schema(**{"x-kubernetes-list-type": "set"})
"""No entry of the list stands twice."""
LABEL_VALUE: dict[str, Any] = {
    "type": "string",
    "maxLength": 63,
    "pattern": r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
}
LabelSet = Annotated[Labels, Schema(additionalProperties=LABEL_VALUE)]
"""Labels whose values have the form that Kubernetes asks for."""
OneHost = Annotated[Text, Schema(pattern=rf"^({_NAME}|{_IPV6})$", maxLength=255)]
"""A DNS name or an IP address."""
Host = Annotated[Text, Schema(pattern=rf"^(\*|(\*\.)?{_NAME}|{_IPV6})$", maxLength=255)]
"""The same, or a wildcard."""
AnyHost = Annotated[Text, Schema(pattern=rf"^((\*\.|\*-?)?{_NAME}|{_IPV6})$", maxLength=255)]
"""A DNS name, also one whose first part ends in what follows a wildcard (`*-api.example.com`); not `*`."""
NamespacedHost = Annotated[Text, Schema(pattern=rf"^((\*|\.|~|{_LABEL})/)?(\*|(\*\.)?{_NAME}|{_IPV6})$", maxLength=320)]
"""The same, or `namespace/` and such a name."""
EgressHost = Annotated[Text, Schema(pattern=rf"^(~/\*|(\*|\.|{_LABEL})/(\*|(\*\.)?{_NAME}))$", maxLength=320)]
"""`namespace/name` as a Sidecar has it; `~/*` is nothing."""
Namespace = Annotated[Text, Schema(pattern=rf"^({_LABEL})?$")]
"""The name of a namespace, or nothing."""
GatewayName = Annotated[Text, Schema(pattern=rf"^({_LABEL}/)?{_LABEL}(\.{_LABEL})*$", maxLength=320)]
"""`mesh`, or the name of a Gateway with or without its namespace."""
SubsetName = Annotated[Text, Schema(pattern=rf"^({_LABEL})?$")]
"""The name of a subset, or nothing."""
PortText = Annotated[Text, Schema(pattern=rf"^{_PORT}$")]
"""A port number as text."""
HeaderName = Annotated[Text, Schema(pattern=rf"^{HEADER}$")]
Value = Annotated[Text, Schema(minLength=1)]
"""Text that is not empty."""
Count = Annotated[Int, Schema(minimum=0)]
"""A number that is not negative."""
ExportTo = Annotated[
    tuple[Annotated[Text, Schema(pattern=rf"^([.*~]|{_LABEL})$", maxLength=63)], ...],
    Schema(
        Cel("self.size() < 2 || !self.exists(each, each in ['*', '~'])", "* and ~ stand alone: remove the others"),
        **{"maxItems": 1024, "x-kubernetes-list-type": "set"},
    ),
]
"""Namespaces, `.` for the own one; or `*` (all) or `~` (none) alone."""

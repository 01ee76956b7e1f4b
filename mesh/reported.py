"""How the labels of Istio's metrics come from Envoy to the agent, packed into one tag. Pure.

Envoy keeps a metric's tags by text, once for each metric, each listener and each series, so two dozen labels a metric
would be most of what metrics cost it (docs/adr/0270). Discovery writes one tag, `TAG`; the agent unpacks it when it
is asked for metrics.

The tag's fields are separated by `FIELD`. One is `name=value`, with the label's name; beside labels there are
`source=` or `destination=` (the workload at the other end, packed), `service=` (host, name and namespace, packed) and
`-=name,name` (labels to leave out). The proxy's own workload is not in it: the agent knows that.
"""

from __future__ import annotations

from collections.abc import Sequence

TAG = "istio"
FIELD = "\x1f"
"""A control character, which no header, host name or label can have."""
PREFIX = "envoy_istio_"
"""How Envoy spells the beginning of these metrics' names; Istio's is `istio_`."""
REPORTER, SERVICE, WITHOUT = "reporter", "service", "-"
GRPC_STATUS = "grpc_response_status"
"""Empty in what is not gRPC."""
SERVICE_LABELS = ("destination_service", "destination_service_name", "destination_service_namespace")


def packed(fields: Sequence[tuple[str, str]], without: Sequence[str] = ()) -> str:
    """The tag's value."""
    texts = [f"{name}={value}" for name, value in fields]
    return FIELD.join([*texts, f"{WITHOUT}={','.join(without)}"] if without else texts)

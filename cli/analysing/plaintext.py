"""Who is seen taking requests and connections in plain text, before mutual TLS becomes STRICT for them.

What proxies count has that, by Istio's label `connection_security_policy`. It is asked of each proxy in its own pod, as
`heddle top` does, and only of those for which the manifests say STRICT (docs/adr/0256).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cli.live.samples import CONNECTIONS, DESTINATION, PLAIN, REQUESTS, Sample, parse
from cli.live.source import istio_metrics
from cli.proxies import Proxies, Proxy
from mesh.analysis.policies import asks_for_strict, selector_of
from mesh.analysis.view import View, workload_of
from mesh.errors import HeddleError
from mesh.istio.base import IstioObject
from mesh.istio.peer_authentication import PeerAuthentication
from mesh.objects import Key

AT_ONCE = 8


def under_strict(view: View, policies: Iterable[IstioObject[PeerAuthentication]]) -> frozenset[Key]:
    """The pods with a sidecar that any of these policies is for, where it asks for STRICT."""
    return frozenset(key for policy in policies if asks_for_strict(policy.spec) for key in _chosen(view, policy))


def _chosen(view: View, policy: IstioObject[Any]) -> Iterator[Key]:
    _, labels = selector_of(policy)
    everywhere = policy.namespace == view.snapshot.settings.root_namespace
    for key, pod in view.snapshot.pods.items():
        inside = everywhere or key.namespace == policy.namespace
        if inside and pod.has_sidecar and workload_of(pod).matches(labels):
            yield key


def taken_by(proxies: Proxies, pods: frozenset[Key]) -> tuple[Mapping[Key, int], tuple[str, ...]]:
    """How many requests and connections in plain text each of the pods has taken since its proxy started, without those
    that have taken none; and a sentence for each proxy that did not tell."""
    asked = [proxy for proxy in proxies.listed() if proxy.pod in pods]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda proxy: _asked(proxies, proxy), asked))
    counts = {proxy.pod: answer for proxy, answer in zip(asked, answers, strict=True) if isinstance(answer, int)}
    silent = [f"{proxy.pod}: {why}" for proxy, why in zip(asked, answers, strict=True) if isinstance(why, str)]
    return {pod: count for pod, count in counts.items() if count}, tuple(silent)


def _asked(proxies: Proxies, proxy: Proxy) -> int | str:
    try:
        return plain(parse(istio_metrics(proxies, proxy)))
    except HeddleError as error:
        return str(error)


def plain(sample: Sample) -> int:
    """Of what a proxy has counted, what came in without TLS."""
    return int(
        sum(
            value
            for series, value in sample.items()
            if (series.reporter, series.policy) == (DESTINATION, PLAIN) and series.metric in (REQUESTS, CONNECTIONS)
        )
    )

"""What runs in pods: sidecars of another version, apps that get past theirs, and images that nobody filled in."""

from __future__ import annotations

from collections.abc import Iterator

from mesh.analysis.model import Code, Finding, Severity
from mesh.analysis.view import View
from mesh.objects import PROXY_CONTAINER, Pod
from mesh.ports import PROXY_UID

OLD_SIDECAR = Code(
    "HDL0507",
    "sidecar-of-another-version",
    Severity.WARNING,
    "A pod's sidecar has another image than the one that pods of its revision get by now, as after an upgrade.",
    "Create the pod anew, such as by `kubectl rollout restart` of its workload.",
    ("IST0158",),
)
AS_THE_PROXY = Code(
    "HDL0508",
    "app-runs-as-the-proxy",
    Severity.WARNING,
    f"A container of the app runs as user {PROXY_UID}, whose traffic is the proxy's own: what it sends gets past the "
    "sidecar, without mutual TLS, routes and telemetry.",
    "Run it as another user: `securityContext.runAsUser`.",
    ("IST0144",),
)
NOT_FILLED_IN = Code(
    "HDL0509",
    "image-auto-without-injection",
    Severity.ERROR,
    "A pod's `istio-proxy` has the image `auto`, which injection replaces, and the pod was not injected: it cannot "
    "start.",
    'Label the pod `sidecar.istio.io/inject: "true"`, or its namespace.',
    ("IST0146", "IST0147"),
)
CODES = (OLD_SIDECAR, AS_THE_PROXY, NOT_FILLED_IN)
_AUTO = "auto"


def sidecar_is_as_new_pods_get_it(view: View, thing: Pod) -> Iterator[Finding]:
    newest = view.newest_sidecar(thing)
    if newest is None or newest.proxy_image == thing.proxy_image:
        return
    says = f"its sidecar is {thing.proxy_image}; Pod {newest.meta.key}, which is newer, got {newest.proxy_image}"
    yield OLD_SIDECAR.on(thing, says=says, hint="create it anew: kubectl rollout restart of its workload")


def app_is_intercepted(view: View, thing: Pod) -> Iterator[Finding]:
    if thing.has_sidecar and not thing.finished:
        for name in thing.beside_the_rules:
            says = f"container {name} runs as user {PROXY_UID}, the proxy's: what it sends gets past the sidecar"
            hint = "set another securityContext.runAsUser"
            yield AS_THE_PROXY.on(thing, "spec", "containers", says=says, hint=hint)


def image_is_filled_in(view: View, thing: Pod) -> Iterator[Finding]:
    if thing.proxy_image == _AUTO and not thing.has_sidecar:
        says = f"the image of {PROXY_CONTAINER} is for injection to fill in, and this pod is not injected"
        hint = 'label it sidecar.istio.io/inject: "true", or its namespace'
        yield NOT_FILLED_IN.on(thing, "spec", "containers", says=says, hint=hint)

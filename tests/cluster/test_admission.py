"""Validation at a real API server: what people are told by kubectl, and that nobody is ever locked out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from mesh import admission
from mesh.admission import ENFORCED
from mesh.errors import HeddleError, NotFound
from tests.cluster.api_server import ApiServer
from tests.cluster.crds import defined
from tests.cluster.kubectl import kubectl, run
from tests.cluster.webhooks import CONTROL, VALIDATORS, Place, place
from tests.support.waiting import wait_for
from tests.webhook.harness import WebhookProcess

pytestmark = pytest.mark.usefixtures("cluster_is_ours")  # its API server calls a webhook of this process

Raw = dict[str, Any]
ENTRY = ENFORCED[0]
ROUTES = "/apis/networking.istio.io/v1/namespaces/{}/virtualservices"


@pytest.fixture(scope="module")
def here(api_server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with defined(api_server), place(api_server, tmp_path_factory.mktemp("admission")) as made:
        yield made


@pytest.fixture(scope="module")
def webhook(here: Place) -> Iterator[WebhookProcess]:
    process = here.start(more=("--probe-seconds", "0.5"))
    try:
        here.register_validator(process.port)
        process.ready()
        yield process
    finally:
        process.close()


@pytest.fixture
def namespace(here: Place) -> Iterator[str]:
    with here.api.namespace() as name:
        yield name


def route(here: Place, destination: str = "reviews", name: str = "reviews") -> Raw:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name, "labels": {"istio.io/rev": here.revision}},
        "spec": {"hosts": [name], "http": [{"route": [{"destination": {"host": destination}}]}]},
    }


def yaml_of(raw: Raw) -> str:
    return yaml.safe_dump(raw)


def create(here: Place, namespace: str, raw: Raw, **query: str) -> str:
    """ "" when it was created; otherwise why not."""
    try:
        here.api.client.call("POST", ROUTES.format(namespace), query=query, body=raw)
    except HeddleError as error:
        return error.message
    return ""


def enforced(here: Place, policy: str) -> bool:
    return here.policies()[ENTRY] == policy


def test_it_is_ignored_at_first_and_enforced_once_it_answers(here: Place, webhook: WebhookProcess) -> None:
    wait_for(lambda: enforced(here, "Fail"))
    others = {name: policy for name, policy in here.policies().items() if name not in ENFORCED}
    assert set(others.values()) == {"Ignore"}, "what the control plane itself needs never waits"
    wait_for(lambda: "heddle_validation_enforced 1.0" in webhook.health("/metrics")[1])


MISTAKES = """
    apiVersion: networking.istio.io/v1beta1
    kind: VirtualService
    metadata: {{name: reviews, labels: {{istio.io/rev: {revision}}}}}
    spec:
      hosts: [reviews, reviews]
      http:
      - match: [{{uri: {{regex: "("}}}}]
        route: [{{destination: {{host: reviews}}}}]
      - route:
        - destination: {{host: reviews}}
          headers: {{request: {{set: {{":path": /x}}}}}}
"""


def test_kubectl_shows_every_error_with_its_field_and_the_way_out(
    here: Place, webhook: WebhookProcess, namespace: str
) -> None:
    wait_for(lambda: enforced(here, "Fail"))
    text = textwrap.dedent(MISTAKES.format(revision=here.revision))
    said = run(here.api, "-n", namespace, "apply", "-f", "-", text=text)
    assert said.code == 1
    assert "spec.hosts[1]" in said.err
    assert "keep one of the two" in said.err
    assert "spec.http[0].match[0].uri.regex" in said.err
    assert "is not an RE2 expression" in said.err
    assert "spec.http[1].route[0].headers.request.set" in said.err
    assert "Traceback" not in said.err
    assert here.api.client.get(ROUTES.format(namespace))["items"] == []
    failed = [
        line for line in webhook.health("/metrics")[1].splitlines() if line.startswith("galley_validation_failed")
    ]
    assert any('reason="invalid_resource"' in line and 'resource="virtualservices"' in line for line in failed)


def test_kubectl_shows_warnings_and_the_object_is_there(here: Place, webhook: WebhookProcess, namespace: str) -> None:
    service = {"metadata": {"name": "ratings"}, "spec": {"ports": [{"name": "http", "port": 80}]}}
    here.api.client.post(f"/api/v1/namespaces/{namespace}/services", service)

    def warned() -> bool:  # once the webhook has seen everything
        return "HDL0101" in applied(route(here, "revews")) and "HDL0101" not in applied(route(here, "ratings"))

    def applied(raw: Raw) -> str:
        text = yaml_of(raw)
        return run(here.api, "-n", namespace, "apply", "--dry-run=server", "-f", "-", text=text).err

    wait_for(warned)
    said = applied(route(here, "revews"))
    assert f"Warning: VirtualService {namespace}/reviews: spec.http[0].route[0].destination.host: " in said
    assert f"there is no Service {namespace}/revews (add it, or correct the host) [HDL0101]" in said
    kubectl(here.api, "-n", namespace, "apply", "-f", "-", text=yaml_of(route(here, "revews")))
    assert len(here.api.client.get(ROUTES.format(namespace))["items"]) == 1


def test_the_meshs_settings_are_refused_with_the_field_and_other_config_maps_are_not_sent(
    here: Place, webhook: WebhookProcess
) -> None:
    """The entry is the default revision's: here it is a configuration of its own, with this revision's address."""
    wait_for(lambda: enforced(here, "Fail"))
    client, name = here.api.client, f"{here.validator}-settings"
    (entry,) = (each for each in admission.configuration()["webhooks"] if each["name"].startswith("settings."))
    known = client.get(f"{VALIDATORS}/{here.validator}")["webhooks"][0]["clientConfig"]
    made = {"metadata": {"name": name}, "webhooks": [{**entry, "clientConfig": known}]}

    def told(config_map: str) -> str:
        text = yaml_of(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": config_map},
                "data": {"mesh": "accessLogFormat: '%RESPONSE_CODES%'"},
            }
        )
        return run(here.api, "-n", CONTROL, "apply", "--dry-run=server", "-f", "-", text=text).err

    client.post(VALIDATORS, made)
    try:
        wait_for(lambda: "is invalid" in told(f"istio-{here.revision}"))
        said = told(f"istio-{here.revision}")
        assert "data.mesh: accessLogFormat: there is no command %RESPONSE_CODES%" in said
        assert "did you mean %RESPONSE_CODE%?" in said
        assert told(f"others-{here.revision}") == ""
    finally:
        client.delete(f"{VALIDATORS}/{name}")


def test_when_the_api_server_gets_no_answer_it_is_ignored_until_it_does(here: Place, webhook: WebhookProcess) -> None:
    wait_for(lambda: enforced(here, "Fail"))
    lead_to(here, 1)
    wait_for(lambda: enforced(here, "Ignore"))
    lead_to(here, webhook.port)
    wait_for(lambda: enforced(here, "Fail"))


def lead_to(here: Place, port: int) -> None:
    """Send everything of the validator to this port."""

    def done() -> bool:
        found = here.api.client.get(f"{VALIDATORS}/{here.validator}")
        for entry in found["webhooks"]:
            entry["clientConfig"]["url"] = f"https://localhost:{port}/validate"
        try:
            here.api.client.put(f"{VALIDATORS}/{here.validator}", found)
        except HeddleError:  # the webhook was faster
            return False
        return True

    wait_for(done)


def test_nobody_is_locked_out_while_no_webhook_is_there(here: Place, webhook: WebhookProcess, namespace: str) -> None:
    """The last test here: the webhook of the others ends."""
    wait_for(lambda: enforced(here, "Fail"))
    assert create(here, namespace, route(here, name="there")) == ""
    webhook.process.terminate()
    webhook.process.wait(60)
    wait_for(lambda: create(here, namespace, route(here), dryRun="All") != "")
    refused = create(here, namespace, route(here), dryRun="All")
    assert f'failed calling webhook "{ENTRY}"' in refused, "which names what to remove"
    for passes in ("kube-system", "istio-system"):
        assert create(here, passes, route(here), dryRun="All") == ""
    unlabelled = route(here, name="unlabelled")
    del unlabelled["metadata"]["labels"]
    assert create(here, namespace, unlabelled) == "", "which is another revision's"
    path = f"{ROUTES.format(namespace)}/there"
    here.api.client.delete(path)
    with pytest.raises(NotFound):
        here.api.client.get(path)
    kubectl(here.api, "delete", "validatingwebhookconfiguration", here.validator)
    wait_for(lambda: create(here, namespace, route(here), dryRun="All") == "")

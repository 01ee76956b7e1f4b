"""The ca on a cluster: a real API server reviews real bound tokens; the ca runs with its own rights and no others."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from cryptography import x509

from ca.certificate_states import CertificateStates
from svid.client import Refused
from svid.material import PodRef
from tests.cli.run import heddle
from tests.cluster.api_server import ApiServer
from tests.cluster.ca_replicas import Place, Replica, certificates_defined, place, pod_ref
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def own(api_server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with certificates_defined(api_server), place(api_server, tmp_path_factory.mktemp("ca")) as made:
        yield made


@pytest.fixture(scope="module")
def ca(own: Place) -> Iterator[Replica]:
    with own.replica() as replica:
        yield replica


@pytest.fixture(scope="module")
def second(own: Place, ca: Replica) -> Iterator[Replica]:
    with own.replica("heddle-ca-1") as replica:
        yield replica


def issuer_of(chain: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificates(chain)[1]


def test_replicas_share_the_root_and_have_each_an_intermediate(own: Place, ca: Replica, second: Replica) -> None:
    pod = own.add_pod("shared")
    first = ca.enrol(own.token(pod))
    renewed = second.renew(first, pod_ref(pod))
    again = ca.renew(renewed, pod_ref(pod))
    assert first.identity == renewed.identity == again.identity
    assert str(first.identity) == f"spiffe://cluster.local/ns/{own.workloads}/sa/reviews"
    assert first.bundle == renewed.bundle
    (root,) = (x509.load_pem_x509_certificate(pem.encode()) for pem in first.bundle.roots)
    issuers = [issuer_of(material.chain_pem) for material in (first, renewed)]
    for issuer in issuers:
        issuer.verify_directly_issued_by(root)
    assert issuers[0].serial_number != issuers[1].serial_number


def test_a_certificate_is_told_of_in_an_object_of_its_pod(own: Place, ca: Replica, second: Replica) -> None:
    pod = own.add_pod("told")
    first = ca.enrol(own.token(pod))
    wait_for(lambda: "told" in own.certificates())
    told = own.certificates()["told"]
    (owner,) = told["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Pod", "told", pod["metadata"]["uid"])
    spec = told["spec"]
    assert spec["serial"] == first.serial
    assert spec["identity"] == str(first.identity)
    assert (spec["pod"], spec["node"], spec["caller"]) == ("told", own.node, "token")
    assert (spec["state"], spec["replica"]) == ("Issued", "heddle-ca-0")
    (root,) = (x509.load_pem_x509_certificate(pem.encode()) for pem in first.bundle.roots)
    assert (spec["root"], spec["issuer"]) == (
        f"{root.serial_number:x}",
        f"{issuer_of(first.chain_pem).serial_number:x}",
    )
    assert datetime.fromisoformat(spec["expires"]).timestamp() == first.not_after
    assert spec["issued"] < spec["renewsAt"] < spec["expires"]

    renewed = second.renew(first, pod_ref(pod))
    wait_for(lambda: own.certificates()["told"]["spec"]["serial"] == renewed.serial)
    spec = own.certificates()["told"]["spec"]
    assert (spec["state"], spec["replica"], spec["caller"]) == ("Renewed", "heddle-ca-1", "certificate")

    own.remove_pod("told")
    # Its owner is gone. The garbage collector looks for new kinds every 30 seconds, and this one may be new.
    wait_for(lambda: "told" not in own.certificates(), looks=5000)


def test_people_see_it(own: Place, ca: Replica) -> None:
    """By kubectl, and by `heddle certificates` with the reader's kubeconfig."""
    pod = own.add_pod("seen")
    material = ca.enrol(own.token(pod), ttl_seconds=3600)
    wait_for(lambda: "seen" in own.certificates())
    kubeconfig = str(own.api.kubeconfig)
    command = ["kubectl", "--kubeconfig", kubeconfig, "get", "svid", "-n", own.workloads]
    head, *lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    columns = ["POD", "IDENTITY", "SERIAL", "ISSUED", "EXPIRES", "RENEWS", "AT", "ROOT", "STATE"]
    assert head.split()[1 : 1 + len(columns)] == columns
    (line,) = (line.split() for line in lines if line.startswith("seen "))
    assert line[1:4] == ["seen", str(material.identity), material.serial]
    assert "Issued" in line

    done = heddle("certificates", "--kubeconfig", kubeconfig, "-n", own.workloads)
    assert done.code == 0, done.err
    (line,) = (line.split() for line in done.out.splitlines() if line.startswith(f"{own.workloads}/seen "))
    assert line[1:3] == [str(material.identity), material.serial]
    (told,) = json.loads(heddle("certificates", "--kubeconfig", kubeconfig, "-n", own.workloads, "-o", "json").out)[
        "certificates"
    ][-1:]
    assert told.keys() >= {"serial", "identity", "pod", "node", "key", "issuer", "root", "replica", "notAfter"}


def test_a_certificate_that_time_has_overtaken_says_so_until_the_next(own: Place, ca: Replica) -> None:
    pod = own.add_pod("overtaken")
    first = ca.enrol(own.token(pod))
    wait_for(lambda: "overtaken" in own.certificates())

    def state_after(share: float) -> str:
        CertificateStates(own.api.client).look(first.not_before + share * (first.not_after - first.not_before))
        return str(own.certificates()["overtaken"]["spec"]["state"])

    assert [state_after(share) for share in (0.4, 0.55, 0.7, 1.0)] == ["Issued", "Issued", "Renewing", "Expired"]
    assert CertificateStates(own.api.client).look(first.not_after) == 0
    renewed = ca.renew(first, pod_ref(pod))
    wait_for(lambda: own.certificates()["overtaken"]["spec"]["serial"] == renewed.serial)
    assert own.certificates()["overtaken"]["spec"]["state"] == "Renewed"


def test_a_pod_that_takes_the_name_of_another_takes_over_the_object(own: Place, ca: Replica) -> None:
    old = own.add_pod("stateful-0")
    ca.enrol(own.token(old))
    wait_for(lambda: "stateful-0" in own.certificates())
    own.remove_pod("stateful-0")
    new = own.add_pod("stateful-0")
    material = ca.enrol(own.token(new))

    def taken_over() -> bool:
        told = own.certificates().get("stateful-0")
        return told is not None and told["spec"]["serial"] == material.serial

    wait_for(taken_over)
    told = own.certificates()["stateful-0"]
    assert [owner["uid"] for owner in told["metadata"]["ownerReferences"]] == [new["metadata"]["uid"]]
    assert told["spec"]["state"] == "Issued"


def test_the_ca_tells_of_its_own_certificate(own: Place, ca: Replica) -> None:
    wait_for(lambda: "heddle-ca-0" in own.certificates(own.namespace))
    spec = own.certificates(own.namespace)["heddle-ca-0"]["spec"]
    assert (spec["caller"], spec["identity"]) == ("self", f"spiffe://cluster.local/ns/{own.namespace}/sa/heddle-ca")


def test_a_token_for_another_audience(own: Place, ca: Replica) -> None:
    pod = own.add_pod("audience")
    with pytest.raises(Refused, match=r'audiences \["vault"\] is invalid for the target audiences') as refused:
        ca.enrol(own.token(pod, "vault"))
    assert refused.value.status == 401


def test_a_token_that_is_not_bound_to_a_pod(own: Place, ca: Replica) -> None:
    with pytest.raises(Refused, match="not bound to a pod") as refused:
        ca.enrol(own.api.token(own.workloads, "reviews", audiences=["istio-ca"]))
    assert refused.value.status == 403


def test_the_control_plane_needs_pods_too_but_for_the_operator(own: Place, ca: Replica) -> None:
    with pytest.raises(Refused, match="not bound to a pod"):
        ca.enrol(own.api.token(own.namespace, "heddle-webhook", audiences=["istio-ca"]))


def test_a_token_that_was_changed(own: Place, ca: Replica) -> None:
    token = own.token(own.add_pod("changed"))
    for changed in (f"{token[:-10]}AAAAAAAAAA", "nonsense", "a.b.c"):
        with pytest.raises(Refused, match="the API server refuses the token") as refused:
            ca.enrol(changed)
        assert refused.value.status == 401


def test_a_deleted_pod_gets_nothing_more(own: Place, ca: Replica) -> None:
    pod = own.add_pod("deleted")
    token = own.token(pod)
    material = ca.enrol(token)
    own.remove_pod("deleted")
    for attempt in (lambda: ca.enrol(token), lambda: ca.renew(material, pod_ref(pod))):
        refused = _eventually_refused(attempt)
        # The API server itself may have noticed already, or still accept the token.
        assert "does not exist (any more)" in str(refused) or "has been invalidated" in str(refused)


def test_a_pod_that_is_being_deleted_is_not_renewed_and_told_so_in_an_event(own: Place, ca: Replica) -> None:
    pod = own.add_pod("ending")
    material = ca.enrol(own.token(pod))
    own.remove_pod("ending", grace=30)
    refused = _eventually_refused(lambda: ca.renew(material, pod_ref(pod)))
    assert (refused.status, str(refused)) == (403, f"pod {own.workloads}/ending is being deleted")
    with pytest.raises(Refused, match="is being deleted"):  # nor by token
        ca.enrol(own.token(pod))
    wait_for(lambda: bool(_events_of(own, pod)))
    (event,) = _events_of(own, pod)
    assert event["type"] == "Warning"
    assert event["reason"] == "CertificateRefused"
    assert event["note"] == f"pod {own.workloads}/ending is being deleted"
    assert event["reportingInstance"] == "heddle-ca-0"


def test_one_refusal_again_and_again_is_one_event(own: Place, ca: Replica) -> None:
    pod = own.add_pod("again")
    token = own.token(pod)
    for _ in range(20):
        status, _, _ = ca.request(
            "POST",
            "/v1/certificates",
            b'{"csr": "hello"}',
            {"Content-Type": "application/json", "Authorization": f"Bearer {token}"},
        )
        assert status == 400
    wait_for(lambda: bool(_events_of(own, pod)))
    (event,) = _events_of(own, pod)
    assert "not a certificate signing request" in event["note"]


def test_nobody_writes_events_on_the_pod_of_another_account(own: Place, ca: Replica) -> None:
    mine, other = own.add_pod("mine"), own.add_pod("other", account="ratings")
    material = ca.enrol(own.token(mine))
    with pytest.raises(Refused, match="was not issued to pod"):
        ca.renew(material, pod_ref(other))
    own.remove_pod("mine", grace=30)  # a refusal that is told of, so that the earlier one would have been too
    _eventually_refused(lambda: ca.renew(material, pod_ref(mine)))
    wait_for(lambda: bool(_events_of(own, mine)))
    assert not _events_of(own, other)


def test_tokens_by_the_api_servers_keys(own: Place) -> None:
    """The other way to judge them, which asks the API server for its keys only."""
    with own.replica("heddle-ca-keys", "--token-issuer-keys", "api") as ca:
        pod = own.add_pod("by-keys")
        assert ca.enrol(own.token(pod)).serial
        with pytest.raises(Refused, match="its audience is not 'istio-ca'"):
            ca.enrol(own.token(pod, "vault"))
        own.remove_pod("by-keys", grace=30)
        assert "is being deleted" in str(_eventually_refused(lambda: ca.enrol(own.token(pod))))


def test_tokens_judged_by_the_ca_itself(own: Place) -> None:
    """With the rights that manifests/options gives for it."""
    with own.replica("heddle-ca-local", "--token-verification", "local") as ca:
        pod = own.add_pod("judged-here")
        assert ca.enrol(own.token(pod)).serial
        with pytest.raises(Refused, match="its audience is not 'istio-ca'"):
            ca.enrol(own.token(pod, "vault"))
        assert "interrupted" not in ca.log.read_text()


def test_a_finished_pod_gets_nothing_more(own: Place, ca: Replica) -> None:
    pod = own.add_pod("job")
    material = ca.enrol(own.token(pod))
    path = f"/api/v1/namespaces/{own.workloads}/pods/job/status"
    own.api.client.merge(path, {"status": {"phase": "Succeeded"}})
    assert "has finished" in str(_eventually_refused(lambda: ca.renew(material, pod_ref(pod))))


def test_many_at_once_make_one_root(api_server: ApiServer, tmp_path: Path) -> None:
    program = (
        "import sys, time; from ca.trust import open_trust; from ca.secret_store import SecretStore;"
        "from ca.settings import CaSettings; from kube.client import connect;"
        "store = SecretStore(connect(kubeconfig=sys.argv[1]), sys.argv[2], 'heddle-ca-root'); sys.stdin.read();"
        "print(open_trust(store, lambda: b'x' * 32, CaSettings(), time.time()).bundle.pem)"
    )
    with place(api_server, tmp_path) as own:
        command = [sys.executable, "-c", program, str(own.kubeconfig), own.namespace]
        started = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
            for _ in range(5)
        ]
        for process in started:
            assert process.stdin is not None
            process.stdin.close()
            process.stdin = None
        outputs = {process.communicate(timeout=60)[0] for process in started}
        assert [process.returncode for process in started] == [0] * 5
        assert outputs == {"".join(own.bundle()["roots"]) + "\n"}
        assert "ENCRYPTED PRIVATE KEY" in own.stored()["root.pem"]


def _eventually_refused(attempt: object) -> Refused:
    """The refusal, as soon as the watch has brought the news."""
    found: list[Refused] = []

    def refused() -> bool:
        try:
            attempt()  # type: ignore[operator]
        except Refused as error:
            found.append(error)
        return bool(found)

    wait_for(refused)
    return found[0]


def _events_of(own: Place, pod: dict[str, object]) -> list[dict[str, str]]:
    ref: PodRef = pod_ref(pod)
    return [event for event in own.events() if event["regarding"]["uid"] == ref.uid]

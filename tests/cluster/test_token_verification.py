"""Tokens judged here and by the API server, side by side: what TokenReview refuses, the ca's own judgement refuses too,
as soon as its watches have heard of it."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from ca.callers import Callers, Credentials
from ca.local_tokens import local_verifier
from ca.pods import PodWatch, ask_api
from ca.policy import Caller
from ca.settings import CaSettings
from kube.tokens import CLOCK_SKEW, ReviewVerifier, ServiceAccountToken, TokenVerifier
from mesh.errors import HeddleError, Unauthenticated
from tests.cluster.api_server import ApiServer
from tests.cluster.ca_replicas import Place, place
from tests.support.waiting import wait_for

pytestmark = pytest.mark.usefixtures("cluster_is_ours")  # for the key by which it signs tokens

AUDIENCE = "istio-ca"


@dataclass
class Counting:
    """The API server's judgement, and how often it was asked for."""

    inner: TokenVerifier
    asked: list[str] = field(default_factory=list)

    def verify(self, token: str, now: float) -> ServiceAccountToken:
        self.asked.append(token)
        return self.inner.verify(token, now)

    def at_once(self, token: str, now: float) -> ServiceAccountToken | None:
        return self.inner.at_once(token, now)


class Judges:
    """Both ways to judge, each in front of the same check of the pod."""

    def __init__(self, own: Place) -> None:
        self.own = own
        client = own.api.client
        self.review = ReviewVerifier(client.post, audience=AUDIENCE)
        self.second = Counting(self.review)
        self.local, accounts = local_verifier(client, self.second, AUDIENCE)
        self.pods = PodWatch(ask_api(client))
        self.watches = [accounts, self.pods.start(client)]
        assert own.api.control_plane is not None
        self.key = (own.api.control_plane.directory / "service-accounts.key").read_text()

    def says(self, verifier: TokenVerifier, token: str) -> str:
        """The caller's identity, or "" when there is none."""
        callers = Callers(CaSettings(), verifier, self.pods, self.pods.known)

        def said(judge: Callable[[Credentials, float], Caller | None]) -> str | None:
            try:
                caller = judge(Credentials(f"Bearer {token}"), time.time())
            except HeddleError:
                return ""
            return caller and f"{caller.identity} {caller.pod_name}"

        for _ in range(2):  # a watch may hear of something between two questions
            at_once, found = said(callers.at_once), said(callers.authenticate)
            if at_once in (None, found):
                break
        assert at_once in (None, found)
        assert found is not None
        return found

    def verdicts(self, token: str) -> tuple[str, str]:
        return self.says(self.review, token), self.says(self.local, token)

    def signed(self, token: str, change: Callable[[dict[str, Any]], None], **header: str) -> str:
        """`token` with other claims, signed by the cluster's own key."""
        claims, kid = jwt.decode(token, options={"verify_signature": False}), jwt.get_unverified_header(token)["kid"]
        change(claims)
        return jwt.encode(claims, self.key, algorithm="RS256", headers={"kid": kid} | header)

    def end(self) -> None:
        for watch in self.watches:
            watch.stop()


@pytest.fixture(scope="module")
def judges(api_server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judges]:
    with place(api_server, tmp_path_factory.mktemp("tokens")) as own:
        made = Judges(own)
        token = own.token(own.add_pod("first"))
        wait_for(lambda: not _asks(made, token))
        yield made
        made.end()


def _asks(judges: Judges, token: str) -> bool:
    """Whether the API server is asked about `token`."""
    before = len(judges.second.asked)
    judges.says(judges.local, token)
    return len(judges.second.asked) > before


def test_both_accept_the_same(judges: Judges) -> None:
    pod = judges.own.add_pod("good")
    token = judges.own.token(pod)
    wait_for(lambda: not _asks(judges, token))
    assert judges.verdicts(token) == (f"spiffe://cluster.local/ns/{judges.own.workloads}/sa/reviews good",) * 2
    assert judges.review.verify(token, time.time()) == judges.local.verify(token, time.time())


def claim(**change: Any) -> Callable[[dict[str, Any]], None]:
    return lambda claims: claims.update(change)


def without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda claims: claims.pop(name)


def private(part: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda claims: claims["kubernetes.io"].update({part: value})


NOW = int(time.time())
HOUR = 3600
# Signed by the cluster's own key. Of each, both judges must say no.
CLAIMS: dict[str, Callable[[dict[str, Any]], None]] = {
    "expired": claim(exp=NOW - 100, iat=NOW - HOUR, nbf=NOW - HOUR),
    "expires-never": without("exp"),
    "not-yet-valid": claim(nbf=NOW + HOUR, iat=NOW + HOUR, exp=NOW + 2 * HOUR),
    "another-issuer": claim(iss="https://elsewhere.example"),
    "no-issuer": without("iss"),
    "another-audience": claim(aud=["vault"]),
    "no-audience": without("aud"),
    "audience-that-begins-like-ours": claim(aud=["istio-ca-other"]),
    "subject-of-another-account": claim(sub="system:serviceaccount:kube-system:admin"),
    "subject-of-a-user": claim(sub="admin"),
    "another-namespace": private("namespace", "kube-system"),
    "another-account": private("serviceaccount", {"name": "default", "uid": "1"}),
    "another-uid-of-the-account": private("serviceaccount", {"name": "reviews", "uid": "1"}),
    "an-account-that-never-was": lambda claims: claims.update(
        {
            "sub": f"system:serviceaccount:{claims['kubernetes.io']['namespace']}:nobody",
            "kubernetes.io": {**claims["kubernetes.io"], "serviceaccount": {"name": "nobody", "uid": "1"}},
        }
    ),
    "another-uid-of-the-pod": private("pod", {"name": "claims", "uid": "1"}),
    "a-pod-that-never-was": private("pod", {"name": "never", "uid": "1"}),
    "a-secret-that-never-was": private("secret", {"name": "never", "uid": "1"}),
    "of-a-node-and-no-pod": lambda claims: (
        claims["kubernetes.io"].pop("pod"),
        claims["kubernetes.io"].update({"node": {"name": "nowhere", "uid": "1"}}),
    )[-1],
    "nothing-private": without("kubernetes.io"),
}


# The API server takes them, and only somebody with its key could make them.
STRICTER = {"expires-never", "no-audience", "subject-of-another-account", "subject-of-a-user"}


@pytest.mark.parametrize("name", CLAIMS)
def test_both_refuse_claims(judges: Judges, name: str) -> None:
    token = _token_of(judges, "claims")
    assert judges.verdicts(judges.signed(token, lambda _claims: None))[1]
    by_review, by_local = judges.verdicts(judges.signed(token, CLAIMS[name]))
    assert by_local == ""
    assert bool(by_review) is (name in STRICTER), by_review


def test_both_refuse_what_the_cluster_did_not_sign(judges: Judges) -> None:
    token = _token_of(judges, "forged")
    head, claims, signature = token.split(".")
    kid = jwt.get_unverified_header(token)["kid"]
    body = jwt.decode(token, options={"verify_signature": False})
    other = rsa.generate_private_key(65537, 2048)
    public = serialization.load_pem_private_key(judges.key.encode(), None).public_key()
    secret = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    signed = f"{_part({'alg': 'HS256', 'kid': kid})}.{claims}"
    mac = base64.urlsafe_b64encode(hmac.digest(secret, signed.encode(), "sha256")).rstrip(b"=").decode()
    forged = {
        "another key": jwt.encode(body, other, algorithm="RS256", headers={"kid": kid}),
        "another key, of an unknown id": jwt.encode(body, other, algorithm="RS256", headers={"kid": "mine"}),
        "none": f"{_part({'alg': 'none', 'kid': kid})}.{claims}.",
        "hmac by the public key": f"{signed}.{mac}",
        "changed": f"{head}.{_part({**body, 'sub': 'system:serviceaccount:kube-system:admin'})}.{signature}",
        "no signature": f"{head}.{claims}.",
        "empty": "..",
        "nonsense": "nonsense",
    }
    asked = len(judges.second.asked)
    assert {name: judges.verdicts(each) for name, each in forged.items()} == dict.fromkeys(forged, ("", ""))
    assert len(judges.second.asked) == asked, "what is forged costs the API server nothing"


def test_an_account_that_is_deleted_and_one_of_its_name(judges: Judges) -> None:
    own = judges.own
    known = own.token(own.add_pod("known", account="short-lived"))
    wait_for(lambda: not _asks(judges, known))
    token = own.token(own.add_pod("orphan", account="short-lived"))
    assert judges.says(judges.local, token)  # by it alone: what the API server has said, it says for ten seconds
    path = f"/api/v1/namespaces/{own.workloads}/serviceaccounts"
    own.api.client.delete(f"{path}/short-lived")
    wait_for(lambda: judges.verdicts(token) == ("", ""))
    own.api.client.post(path, {"metadata": {"name": "short-lived"}})
    another = own.token(own.add_pod("heir", account="short-lived"))
    wait_for(lambda: all(judges.verdicts(another)))
    assert judges.verdicts(token) == ("", "")


def test_a_pod_that_is_deleted_and_one_of_its_name(judges: Judges) -> None:
    own = judges.own
    token = own.token(own.add_pod("stateful-0"))
    wait_for(lambda: all(judges.verdicts(token)))
    own.remove_pod("stateful-0")
    wait_for(lambda: judges.verdicts(token) == ("", ""))
    another = own.token(own.add_pod("stateful-0"))
    wait_for(lambda: all(judges.verdicts(another)))
    assert judges.verdicts(token) == ("", "")


def test_a_pod_of_another_account(judges: Judges) -> None:
    """Both take the token; the pod says whose it is."""
    ratings = judges.own.add_pod("of-ratings", account="ratings")
    meta = ratings["metadata"]
    token = judges.signed(_token_of(judges, "of-reviews"), private("pod", {"name": meta["name"], "uid": meta["uid"]}))
    assert judges.verdicts(token) == ("", "")


def test_another_node_than_the_pods(judges: Judges) -> None:
    token = judges.signed(_token_of(judges, "placed"), private("node", {"name": "elsewhere", "uid": "1"}))
    assert judges.verdicts(token) == ("", "")


def test_a_token_of_a_secret_counts_while_the_secret_is_there(judges: Judges) -> None:
    """Legacy tokens never expire and have no audience: both refuse them."""
    own, client = judges.own, judges.own.api.client
    own.api.token(own.workloads, "legacy")
    secrets = f"/api/v1/namespaces/{own.workloads}/secrets"
    meta = {"name": "legacy-token", "annotations": {"kubernetes.io/service-account.name": "legacy"}}
    client.post(secrets, {"metadata": meta, "type": "kubernetes.io/service-account-token"})
    wait_for(lambda: "token" in (client.get(f"{secrets}/legacy-token").get("data") or {}))
    token = base64.b64decode(client.get(f"{secrets}/legacy-token")["data"]["token"]).decode()
    assert judges.verdicts(token) == ("", "")
    # Whatever else is bound to a secret is the API server's to judge.
    bound = judges.signed(_token_of(judges, "of-a-secret"), private("secret", {"name": "legacy-token", "uid": "1"}))
    assert _asks(judges, bound)


def test_clocks_that_differ_by_two_minutes_and_by_an_hour(judges: Judges) -> None:
    """By the ca's clock, which is all that the local judgement has."""
    token = _token_of(judges, "clocks")
    for behind in (120, CLOCK_SKEW - 5):
        assert judges.local.verify(token, time.time() - behind).pod_name == "clocks"
    with pytest.raises(Unauthenticated, match=r"not valid yet, but in 3,[56]\d\d s.*clocks"):
        judges.local.verify(token, time.time() - HOUR)
    with pytest.raises(Unauthenticated, match=r"expired, 3,[456]\d\d s ago.*clocks"):
        judges.local.verify(token, time.time() + 2 * HOUR)


def _token_of(judges: Judges, name: str) -> str:
    token = judges.own.token(_pod(judges, name))
    wait_for(lambda: not _asks(judges, token))
    return token


def _pod(judges: Judges, name: str) -> dict[str, Any]:
    path = f"/api/v1/namespaces/{judges.own.workloads}/pods"
    found = [pod for pod in judges.own.api.client.get(path)["items"] if pod["metadata"]["name"] == name]
    return found[0] if found else judges.own.add_pod(name)


def _part(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

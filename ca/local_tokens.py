"""Tokens judged here: by the API server's keys, and by watches of what they are bound to (docs/adr/0241).

What a key, a claim or a date refuses is refused without asking anybody. What is accepted here is bound to a pod, which
`ca.callers` looks for, and belongs to a service account that exists with the token's very uid. About all else (an
account that the watch does not know, a token of a secret or of a node, a watch that is silent) the API server is asked,
as it would be without this module: so nothing is accepted that it refuses, but for the time that a watch is behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ca.pods import STALE
from kube.client import Client
from kube.source import Changed, Event, Listed, Source, Watched
from kube.tokens import KeysVerifier, ServiceAccountToken, TokenVerifier, discovered_issuer, read_keys

WATCHED = Watched("ServiceAccount", "/api/v1/serviceaccounts")


class AccountWatch:
    """The uid of each service account, by namespace and name."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._uids: dict[tuple[str, str], str] = {}
        self._heard = float("-inf")

    def exists(self, namespace: str, name: str, uid: str) -> bool:
        """Whether it is certain that this very account exists, and is not being deleted."""
        fresh = self._monotonic() - self._heard < STALE
        return fresh and bool(uid) and self._uids.get((namespace, name)) == uid

    def take(self, event: Event) -> None:
        """One event of the watch, in order, from its one thread."""
        match event:
            case Listed(objects=objects):
                self._uids = {_key(account): _uid(account) for account in objects}
            case Changed(object=account, deleted=True):
                self._uids.pop(_key(account), None)
            case Changed(object=account):
                self._uids[_key(account)] = _uid(account)
        self._heard = self._monotonic()


class LocalVerifier:
    """A TokenVerifier: `keys` judge, `accounts` confirm, `review` (the API server) decides what is left."""

    def __init__(self, keys: TokenVerifier, accounts: AccountWatch, review: TokenVerifier) -> None:
        self._keys, self._accounts, self._review = keys, accounts, review

    def verify(self, token: str, now: float) -> ServiceAccountToken:
        found = self._keys.verify(token, now)
        return found if self._is_certain(found) else self._review.verify(token, now)

    def at_once(self, token: str, now: float) -> ServiceAccountToken | None:
        """What needs no review, by keys that are at hand."""
        found = self._keys.at_once(token, now)
        return found if found is not None and self._is_certain(found) else None

    def _is_certain(self, found: ServiceAccountToken) -> bool:
        bound_to_a_pod_alone = bool(found.pod_name and found.pod_uid) and not found.secret
        return bound_to_a_pod_alone and self._accounts.exists(
            found.namespace, found.service_account, found.service_account_uid
        )


def local_verifier(client: Client, review: TokenVerifier, audience: str) -> tuple[LocalVerifier, Source]:
    """And its watch, which has started. Needs the right to `list` and `watch` service accounts; without it, all is
    reviewed."""
    accounts = AccountWatch()
    source = Source([WATCHED], client)
    source.start(accounts.take)
    keys = KeysVerifier(
        lambda: read_keys("api", client.get), issuer=lambda: discovered_issuer(client.get), audience=audience
    )
    return LocalVerifier(keys, accounts, review), source


def _key(account: Mapping[str, Any]) -> tuple[str, str]:
    meta = account.get("metadata") or {}
    return meta.get("namespace", ""), meta.get("name", "")


def _uid(account: Mapping[str, Any]) -> str:
    """Its uid; "" when it is being deleted: what becomes of its tokens is for the API server to say."""
    meta = account.get("metadata") or {}
    return "" if meta.get("deletionTimestamp") else str(meta.get("uid", ""))

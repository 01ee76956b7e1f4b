"""Whether the API server may go on without the webhook's answer: `failurePolicy` Ignore at first, Fail once it answers.

Every replica asks itself through the API server: it creates, in a dry run and in the control plane's namespace, an
object that only this webhook refuses (mesh.admission.PROBE). The refusal proves the whole way: entry, service,
certificate, answer. Two in a row turn the entries of `mesh.admission.ENFORCED` to Fail. When the API server takes the
object instead, as it does when it cannot reach any replica, three in a row turn them back. Every replica writes, each
the same, and only what is to be changed: nobody is elected. An answer that is neither (the API server is away, the CRD
is not there) changes nothing.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import structlog

from kube.client import Client
from kube.source import list_path
from mesh.admission import ENFORCED, PROBE
from mesh.annotations import REVISION
from mesh.errors import HeddleError
from mesh.kinds import NETWORKING
from webhook.registration import MANAGER, VALIDATING

SECONDS = 20.0
"""Between two questions while all is well."""
SOON_SECONDS = 2.0
"""Between two questions otherwise."""
ANSWERS_TO_FAIL = 2
SILENCES_TO_IGNORE = 3

Raw = Mapping[str, Any]
log = structlog.get_logger("webhook")


class Answer(StrEnum):
    """What came of a question; UNKNOWN says nothing about the webhook."""

    REFUSED = "refused"
    IGNORED = "ignored"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Judge:
    """What the last answers amount to."""

    answered: int = 0
    ignored: int = 0

    def after(self, answer: Answer) -> Judge:
        if answer is Answer.UNKNOWN:
            return self
        return Judge(self.answered + 1, 0) if answer is Answer.REFUSED else Judge(0, self.ignored + 1)

    @property
    def policy(self) -> str:
        """The failurePolicy that they call for; "" for the one that is there."""
        if self.answered >= ANSWERS_TO_FAIL:
            return "Fail"
        return "Ignore" if self.ignored >= SILENCES_TO_IGNORE else ""


def policy_patch(configuration: Raw, policy: str) -> dict[str, Any] | None:
    """The strategic merge patch that gives `policy` to every entry that is enforced; None when they have it."""
    entries = [
        {"name": entry["name"], "failurePolicy": policy}
        for entry in configuration.get("webhooks") or ()
        if entry.get("name") in ENFORCED and entry.get("failurePolicy") != policy
    ]
    if not entries:
        return None
    # With the version, so that a patch made from what is no longer so is refused, and made again.
    return {"metadata": {"resourceVersion": configuration["metadata"].get("resourceVersion", "")}, "webhooks": entries}


class Enforcement:
    """`configurations`: the ValidatingWebhookConfigurations of this revision, as they are now."""

    def __init__(
        self,
        client: Client,
        revision: str,
        namespace: str,
        configurations: Callable[[], list[Raw]],
        on_policy: Callable[[bool], None] = lambda _enforced: None,
        *,
        nonce: Callable[[], str] = lambda: secrets.token_hex(8),
        seconds: float = SECONDS,
    ) -> None:
        self._client, self._revision, self._configurations = client, revision, configurations
        self._path = list_path(NETWORKING, "v1", "workloadgroups", namespace)
        self._on_policy, self._nonce, self._seconds = on_policy, nonce, seconds
        self._judge = Judge()
        self._stop = threading.Event()
        self._told = ""

    def start(self) -> None:
        """From now on, ask, in a thread."""
        threading.Thread(target=self._run, name="enforcement", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._stop.wait(self._seconds if self.look() else min(SOON_SECONDS, self._seconds))

    def look(self) -> bool:
        """Ask once, and write what follows; whether it is enforced."""
        known = self._configurations()
        if not known:
            return False  # nothing is registered, so nobody is sent here
        self._judge = self._judge.after(self._ask())
        policy = self._judge.policy
        if policy:
            self._on_policy(policy == "Fail")
        written = [self._write(each, policy) for each in known] if policy else []
        return policy == "Fail" and all(written)

    def _ask(self) -> Answer:
        nonce = self._nonce()
        metadata = {
            "name": f"heddle-admission-probe-{nonce}",
            "labels": {REVISION: self._revision},
            "annotations": {PROBE: nonce},
        }
        body = {
            "apiVersion": f"{NETWORKING}/v1",
            "kind": "WorkloadGroup",
            "metadata": metadata,
            "spec": {"template": {"serviceAccount": "default"}},
        }
        try:
            self._client.call("POST", self._path, query={"dryRun": "All"}, body=body)
        except HeddleError as error:
            if nonce in error.message and "asked and answered" in error.message:
                return Answer.REFUSED
            self._tell(str(error))
            return Answer.UNKNOWN
        self._tell("the API server took what only this webhook refuses: it does not reach it")
        return Answer.IGNORED

    def _tell(self, why: str) -> None:
        """Once of each reason, without what is in it only this time."""
        kind = why.partition("heddle-admission-probe-")[0]
        if kind != self._told:
            self._told = kind
            log.info("no proof that the API server gets answers", why=why)

    def _write(self, configuration: Raw, policy: str) -> bool:
        patch = policy_patch(configuration, policy)
        if patch is None:
            return True
        name = configuration["metadata"]["name"]
        try:
            self._client.call(
                "PATCH",
                f"{VALIDATING.path}/{name}",
                query={"fieldManager": MANAGER},
                body=patch,
                content_type="application/strategic-merge-patch+json",
            )
        except HeddleError as error:
            if error.status != 409:  # changed meanwhile: the watch brings what it is now
                log.warning("failurePolicy not written, will try again", error=str(error))
            return False
        log.info("failurePolicy written", configuration=name, policy=policy)
        return True

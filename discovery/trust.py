"""What agents are told about trust, and what each has said: `GET /v1/trust`, and a part of every held poll.

The bundle comes from the ca over mutual TLS (docs/adr/0201), not from a ConfigMap that others may write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import orjson

from discovery.sessions import Session
from mesh.wire import TrustReport
from svid.trust import News, merged, news_json


class TrustDesk:
    """Holds the newest; `wake` is called after each change, so that held polls look again."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._news: News | None = None
        self._encoded = b""

    def take(self, news: News) -> None:
        """What the ca says now. What is older than what is known changes nothing."""
        before = self._news
        after = news if before is None else merged(before, news)
        if after != before:
            self._news, self._encoded = after, orjson.dumps(news_json(after))
            self._wake()

    def for_agent(self, report: TrustReport | None) -> bytes:
        """The news (JSON) for an agent that has said `report`; empty where there is none, or it would not understand.

        An agent that is ahead, because it has renewed at a ca that knows more than this discovery, is left alone.
        """
        if report is None or self._news is None:
            return b""
        has = max((report.sequence, report.revision), report.known)
        return self._encoded if has < self._news.bundle.stamp or report.order < self._news.order.number else b""


def trust_json(sessions: Iterable[Session]) -> dict[str, Any]:
    """The body of `GET /v1/trust`: each agent, with what it acts upon; null where it is too old to say."""
    return {
        "proxies": [
            {
                "namespace": session.key.namespace,
                "pod": session.key.name,
                "uid": session.pod_uid,
                "connected": session.connected,
                "agentVersion": session.proxy.agent_version,
                "trust": session.trust.as_json() if session.trust else None,
            }
            for session in sessions
        ]
    }

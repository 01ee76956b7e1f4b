"""Ports that other software knows (docs/architecture.md has the table)."""

from __future__ import annotations

ENVOY_ADMIN = 15000
OUTBOUND = 15001
GATE = 15002  # of the gate before the pod starts, on 127.0.0.1 (node/claim.py)
INBOUND = 15006
WEBHOOK = 15017
DISCOVERY = 15012
CA = 15013
CONTROL_METRICS = 15014
AGENT = 15020
HEALTH = 15021
ENVOY_STATS = 15090

PROXY_UID = 1337
PROXY_GID = 1337

"""Interception rules from outside the pod: the gate in the pod, and the agent on its node (docs/adr/0130)."""

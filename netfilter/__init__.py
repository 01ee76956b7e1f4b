"""Interception rules in force: what calls iptables (docs/adr/0131)."""

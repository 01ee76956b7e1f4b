"""Rotation of the root: a new key for the trust domain without a handshake that fails (docs/adr/0200)."""

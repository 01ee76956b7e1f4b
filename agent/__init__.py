"""PID 1 of the sidecar container: identity, configuration, Envoy's life."""

VERSION = "0.1.0"
"""The distribution's version; importlib.metadata would cost the agent a megabyte to read it."""

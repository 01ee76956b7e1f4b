"""PID 1 of the sidecar: identity, Envoy's supervision, and Envoy's xDS and SDS server over a Unix socket."""

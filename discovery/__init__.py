"""Configuration and service discovery: objects -> Snapshot -> Plan -> versioned Envoy resources."""

"""What a changed object would make of proxies' configuration, loaded by a real Envoy before the object is stored."""

"""How Envoy is told to do what the plan says. Knows Envoy and no Istio."""

"""What each proxy should do, in the mesh's own words. Knows Istio's rules and no Envoy."""

"""What becomes of one request, told from the plans of its client and of its servers; no Envoy is asked."""

"""Istio's kinds, one module each: the typed model is the validation, the schema and the reference page."""

"""Grafana's dashboards, as tables: traffic.py, control_plane.py. `python -m install.dashboards` writes them as JSON."""

"""Writes manifests/addons/dashboards/."""

from install.dashboards.grafana import DASHBOARDS, page, page_of

for each in DASHBOARDS:
    page_of(each).write_text(page(each))

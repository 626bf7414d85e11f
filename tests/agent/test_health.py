"""Which process is a program of ours, told by its words."""

from __future__ import annotations

import pytest

from routed.health import role_of


@pytest.mark.parametrize(
    ("words", "role"),
    [
        ("/opt/routed/bin/python /opt/routed/bin/routed server --listen 192.0.2.1:1", "server"),
        ("/usr/lib/routed/bin/python -I /usr/bin/routed agent --run-dir /run/routed", "agent"),
        ("python3 -m routed.main speaker", "speaker"),
        ("python3 -m routed.main up", None),
        ("routed healthcheck", None),
        ("python3 -m bgp.launcher server /run/routed/exabgp/exabgp.conf", None),
        ("/sbin/docker-init -- routed speaker --config /etc/routed/agent.yaml", None),
        ("sh -c routed", None),
        ("", None),
    ],
)
def test_role(words: str, role: str | None) -> None:
    found = role_of(words.split())
    assert (found and found[0]) == role


def test_its_options_are_what_follows() -> None:
    assert role_of(["routed", "server", "--listen", "[::1]:1"]) == (
        "server",
        ["--listen", "[::1]:1"],
    )

"""Somebody with root takes things away at random: each is back within a second, and nothing that
is not ours is touched meanwhile."""

from __future__ import annotations

import json
import random
import re
import time
from collections import defaultdict
from collections.abc import Callable

import pytest
from support.labs import Workloads
from support.rig import IGNORED, Figures, wait_agreed

from routed.lab.fabric import command, inside
from routed.lab.lab import Lab
from routed.lab.processes import wait_for

pytestmark = [pytest.mark.lab, IGNORED, pytest.mark.timeout(600)]


def link_state(host: str, link: str, space: str) -> str:
    """Routes, neighbours and addresses of a link of ours, as the kernel has them, at both ends."""
    inner = space.rpartition("/")[2]
    found = [
        command("ip", "-n", host, "route", "show", "dev", link),
        command("ip", "-n", host, "neigh", "show", "nud", "permanent", "dev", link),
        addresses(host, link),
        command("ip", "-n", inner, "route", "show"),
        command("ip", "-n", inner, "neigh", "show", "nud", "permanent"),
        addresses(inner, "eth0"),
    ]
    return "\n".join(found)


def addresses(namespace: str, link: str) -> str:
    shown = json.loads(command("ip", "-n", namespace, "-j", "-4", "addr", "show", "dev", link))
    return str([(one["operstate"], sorted(a["local"] for a in one["addr_info"])) for one in shown])


def learned(host: str) -> str:
    """The default route, whatever the number of its group."""
    shown = command("ip", "-n", host, "route", "show", "default", "proto", "82")
    return re.sub(r"nhid \d+", "", shown)


def foreign_state(host: str) -> str:
    """What somebody else made here."""
    parts = [
        command("ip", "-n", host, "route", "show", "dev", "theirs"),
        command("ip", "-n", host, "route", "show", "proto", "99"),
        command("ip", "-n", host, "-4", "addr", "show", "dev", "theirs"),
        inside(host, "nft", "list", "table", "inet", "theirs"),
    ]
    return "\n".join(parts)


def test_a_vandal(lab: Lab, workloads: Workloads, figures: Figures, full: bool) -> None:
    host = f"{lab.top.name}-host1"
    made = [workloads.attach("host1", f"v{n}") for n in range(4)]
    links = {
        item["addresses"][0]: (item["hostInterface"], item["netns"])
        for item in lab.local("host1").get("/v1/attachments").json()["items"]
    }
    command("ip", "-n", host, "link", "add", "theirs", "type", "bridge")
    command("ip", "-n", host, "addr", "add", "192.0.2.1/24", "dev", "theirs")
    command("ip", "-n", host, "link", "set", "theirs", "up")
    command("ip", "-n", host, "route", "add", "198.51.100.0/24", "via", "192.0.2.9", "proto", "99")
    inside(host, "nft", "add", "table", "inet", "theirs")
    theirs = foreign_state(host)
    wait_agreed(lab, "host1")
    dice = random.Random(1)  # noqa: S311 - a seed, so that a failure can be repeated
    table = inside(host, "nft", "-s", "list", "table", "inet", "routed")

    routes = learned(host)
    assert "default" in routes

    def route(link: str, address: str, space: str) -> None:
        command("ip", "-n", host, "route", "del", f"{address}/32", "dev", link)

    def neighbour(link: str, address: str, space: str) -> None:
        command("ip", "-n", host, "neigh", "del", address, "dev", link)

    def gateway(link: str, address: str, space: str) -> None:
        command("ip", "-n", host, "addr", "del", "169.254.1.1/32", "dev", link)

    def down(link: str, address: str, space: str) -> None:
        command("ip", "-n", host, "link", "set", link, "down")

    def delete(link: str, address: str, space: str) -> None:
        command("ip", "-n", host, "link", "del", link)

    def rename(link: str, address: str, space: str) -> None:
        command("ip", "-n", host, "link", "set", link, "down")
        command("ip", "-n", host, "link", "set", link, "name", f"x{link[1:]}")
        command("ip", "-n", host, "link", "set", f"x{link[1:]}", "up")

    def filters(link: str, address: str, space: str) -> None:
        inside(host, "nft", "delete", "table", "inet", "routed")

    def next_hops(link: str, address: str, space: str) -> None:
        """The kernel takes every learned route along."""
        command("ip", "-n", host, "nexthop", "flush", "proto", "82")

    def inner_address(link: str, address: str, space: str) -> None:
        command("ip", "-n", inner(space), "addr", "flush", "dev", "eth0", "scope", "global")

    def inner_route(link: str, address: str, space: str) -> None:
        command("ip", "-n", inner(space), "route", "del", "default")

    def inner(space: str) -> str:
        return space.rpartition("/")[2]

    deeds: list[Callable[[str, str, str], None]] = [
        route, neighbour, gateway, down, delete, rename, filters, next_hops, inner_address,
        inner_route,
    ]  # fmt: skip
    slowest: dict[str, float] = defaultdict(float)
    began, count = time.monotonic(), 0
    try:
        while count < len(deeds) * 2 or (full and time.monotonic() - began < 60):
            deed = deeds[count] if count < len(deeds) else dice.choice(deeds)
            _, address = dice.choice(made)
            link, space = links[address]
            before = link_state(host, link, space)

            def whole(link: str = link, space: str = space, before: str = before) -> bool:
                return (
                    link_state(host, link, space) == before
                    and learned(host) == routes
                    and inside(host, "nft", "-s", "list", "table", "inet", "routed") == table
                )

            start = time.monotonic()
            deed(link, address, space)
            wait_for(f"the repair of {deed.__name__}", whole, 5)
            took = time.monotonic() - start
            slowest[deed.__name__] = max(slowest[deed.__name__], took)
            count += 1
        assert foreign_state(host) == theirs
        assert all(lab.ping(host, address) for _, address in made)
    finally:
        command("ip", "-n", host, "link", "del", "theirs")
        inside(host, "nft", "delete", "table", "inet", "theirs")
    wait_agreed(lab, "host1")
    figures.add(
        f"a vandal, {count} deeds",
        "each undone <= 1 s, foreign objects untouched",
        ", ".join(f"{name} {took:.2f} s" for name, took in slowest.items()),
    )
    assert max(slowest.values()) <= 1.0, dict(slowest)

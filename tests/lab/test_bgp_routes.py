"""`routectl bgp routes` on a lab's hosts: what the switches say, what is used of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.labs import Workloads

from routed.lab.fabric import inside
from routed.lab.lab import Lab
from routed.lab.processes import wait_for

pytestmark = pytest.mark.lab


def test_what_switches_say_is_shown_with_what_is_used_of_it(lab: Lab, workloads: Workloads) -> None:
    def said(host: str, *words: str) -> str:
        command = lab.ctl("bgp", "routes", "--agent", str(lab.socket(host)), *words)
        return inside(f"{lab.top.name}-{host}", *command)

    def heard() -> dict[tuple[str, str], Any]:
        items = json.loads(said("host1", "-o", "json"))["items"]
        return {(one["prefix"], one["peer"]): one for one in items}

    _, address = workloads.attach("host2", "told")
    prefix = f"{address}/32"
    peers = [f"tor{tor.number}" for tor in lab.top.tors]  # as the examples call them

    def from_all() -> bool:
        held = heard()
        return all(held.get((prefix, peer), {}).get("used") for peer in peers)

    wait_for("both switches saying it, and both used", from_all, 10)
    found = heard()
    for tor, peer in zip(lab.top.tors, peers, strict=True):
        one = found[prefix, peer]
        assert one["nextHops"] == [tor.address]
        assert one["asPath"][0] == tor.as_number
        assert len(one["asPath"]) == 2
        assert not one["stale"]
    table = said("host1", "--peer", peers[0])
    assert table.splitlines()[0].split()[:2] == ["PREFIX", "PEER"]
    assert prefix in table
    assert peers[1] not in table
    assert prefix in said("host2", "--announced")
    assert prefix not in said("host1", "--announced")
    workloads.clean()
    wait_for("it being gone", lambda: not any(key[0] == prefix for key in heard()), 10)

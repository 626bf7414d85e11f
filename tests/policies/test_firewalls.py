"""Firewalls of other programs as these write them: judged right before the remedy, after it, and
with what makes it last."""

from __future__ import annotations

import asyncio
import struct
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
from support.docker import program
from support.firewalls import NAMES, clear, load
from support.netns import in_fresh_namespace, run

from policies import docker, legacy
from policies.firewall import blocking
from policies.nft import Nft
from policies.watch import LEGACY_SECONDS

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def iptables() -> None:
    program("iptables-legacy", "iptables")


def remedies(nft: Nft) -> list[str]:
    return [command for one in nft.blocking() for command in one.remedy.split("; ")]


@pytest.mark.parametrize("name", NAMES)
def test_what_it_drops_is_told_and_the_remedy_is_seen(name: str) -> None:
    async def body() -> None:
        nft = Nft()
        load(name)
        found = remedies(nft)
        assert found
        for command in found[:-1]:
            run(*command.split())
        assert nft.blocking(), "a half is not enough"
        run(*found[-1].split())
        assert nft.blocking() == []
        clear()
        nft.close()

    in_fresh_namespace(body)


@pytest.mark.parametrize("name", ["firewalld", "ufw"])
def test_what_makes_it_last_is_seen(name: str) -> None:
    async def body() -> None:
        nft = Nft()
        load(name)
        lasting = {one.lasting for one in nft.blocking()}
        assert len(lasting) == 1
        assert lasting.pop().split()[0] == {"firewalld": "firewall-cmd"}.get(name, name)
        clear()
        load(f"{name}-kept")
        assert nft.blocking() == []
        nft.close()

    in_fresh_namespace(body)


@pytest.mark.parametrize("program_name", ["iptables-legacy", "ip6tables-legacy"])
@pytest.mark.parametrize(
    ("rules", "blocked"),
    [
        (["-P FORWARD DROP"], True),
        (["-A FORWARD -j REJECT"], True),
        (["-A FORWARD -i eth+ -j DROP"], False),
        (["-P FORWARD DROP", "-A FORWARD -i rt+ -j ACCEPT", "-A FORWARD -o rt+ -j ACCEPT"], False),
        (["-P FORWARD DROP", "-A FORWARD -i rt0 -j ACCEPT", "-A FORWARD -o rt0 -j ACCEPT"], True),
        (["-P FORWARD DROP", "-A FORWARD ! -i rt+ -j ACCEPT", "-A FORWARD -o rt+ -j ACCEPT"], True),
        (["-A FORWARD -p tcp -j DROP", "-N a", "-N b", "-A b -j DROP", "-A a -j RETURN",
          "-A FORWARD -j a", "-A FORWARD -i eth0 -j b"], False),
        (["-N a", "-N b", "-A a -i rt+ -g b", "-A b -j DROP", "-A FORWARD -j a"], True),
        (["-P FORWARD DROP", "-N a", "-A a -m comment --comment x -j ACCEPT", "-A FORWARD -j a"],
         False),
        (["-P FORWARD DROP", "-A FORWARD -m conntrack --ctstate NEW -j ACCEPT"], True),
    ],
)  # fmt: skip
def test_rules_of_the_legacy_iptables(program_name: str, rules: list[str], blocked: bool) -> None:
    async def body() -> None:
        nft = Nft()
        assert legacy.entries() == [], "nothing is made by looking"
        for rule in rules:
            done = subprocess.run([program_name, *rule.split()], capture_output=True, check=False)
            assert done.returncode == 0
        found = nft.blocking()
        assert bool(found) is blocked
        assert all(one.remedy.startswith(f"{program_name} -I FORWARD") for one in found)
        clear()
        nft.close()

    in_fresh_namespace(body)


def test_the_legacy_iptables_are_heard_of() -> None:
    async def body() -> None:
        nft = Nft()
        heard = aiter(nft.watch())
        assert await anext(heard), "of what was before, nothing is known"
        first = asyncio.ensure_future(anext(heard))
        await asyncio.sleep(0)
        run("iptables-legacy", "-P", "FORWARD", "DROP")
        async with asyncio.timeout(LEGACY_SECONDS * 5):
            await first
        again = asyncio.ensure_future(anext(heard))
        run("iptables-legacy", "-P", "FORWARD", "ACCEPT")
        async with asyncio.timeout(LEGACY_SECONDS * 5):
            await again
        nft.close()

    in_fresh_namespace(body)


def test_what_bridges_drop_is_no_matter_of_routed_packets() -> None:
    async def body() -> None:
        text = "table bridge x { chain f { type filter hook forward priority 0; policy drop; }; }"
        run("nft", text)
        nft = Nft()
        assert nft.blocking() == []
        nft.close()

    in_fresh_namespace(body)


def rule_blob(count: int, target: int = 112, length: int = 152) -> bytes:
    """So many rules of IPv4 that accept all, as the kernel hands them out."""
    one = bytearray(152)
    struct.pack_into("=HH", one, 88, target, length)
    struct.pack_into("=Q", one, 96, 77)  # packets
    struct.pack_into("=H", one, 112, 40)
    struct.pack_into("=i", one, 144, -2)
    return bytes(one) * count


@pytest.mark.parametrize(
    ("blob", "policy"),
    [(rule_blob(3), 7), (rule_blob(3, target=65000), 0), (rule_blob(1)[:113], 0), (b"", 0)],
)
def test_a_table_that_changes_meanwhile_is_unreadable_now(
    monkeypatch: pytest.MonkeyPatch, blob: bytes, policy: int
) -> None:
    listing = SimpleNamespace(read_text=lambda **_: "filter")
    monkeypatch.setattr(legacy, "Path", lambda *_: listing)
    monkeypatch.setattr(legacy, "FAMILIES", legacy.FAMILIES[:1])
    monkeypatch.setattr(legacy, "_read", lambda _: (blob, {"forward": (0, policy)}))
    assert legacy.entries() == []
    assert len(legacy.state()) == 1


def test_counters_are_no_difference() -> None:
    blob = rule_blob(3)
    counted, other = bytearray(blob), bytearray(blob)
    struct.pack_into("=QQ", counted, 152 + 96, 5, 6)
    struct.pack_into("=i", other, 152 + 144, -1)
    four = legacy.FAMILIES[0]
    assert legacy.uncounted(four, bytes(counted)) == legacy.uncounted(four, blob)
    assert legacy.uncounted(four, bytes(other)) != legacy.uncounted(four, blob)


@pytest.mark.parametrize("part", ["notrack", {"xt": None}, {"xt": "what"}, {"match": None}])
def test_statements_that_nobody_knows(part: Any) -> None:
    where = {"family": "ip", "table": "filter", "chain": "f", "handle": 1}
    chain = {"family": "ip", "table": "filter", "name": "f", "hook": "forward", "policy": "drop"}
    matched = {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "rt*"}}
    for expression in ([part], [matched, part, {"accept": None}]):
        rule = {**where, "expr": expression}
        assert len(blocking([{"chain": chain}, {"rule": rule}])) == 1
        assert docker.commands([{"chain": {**chain, "name": "DOCKER-USER"}},
                                {"rule": {**rule, "chain": "DOCKER-USER"}}])  # fmt: skip

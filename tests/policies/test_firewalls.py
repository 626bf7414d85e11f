"""Firewalls of other programs as these write them: judged right before the remedy, after it, and
with what makes it last."""

from __future__ import annotations

import asyncio
import subprocess

import pytest
from support.docker import program
from support.firewalls import NAMES, clear, load
from support.netns import in_fresh_namespace, run

from policies import legacy
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

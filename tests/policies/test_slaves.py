"""Other people's firewalls and workloads of the ipvlan modes, which pass INPUT and OUTPUT."""

from __future__ import annotations

import subprocess
from ipaddress import ip_network

import pytest
from support.docker import program
from support.firewalls import clear, load
from support.netns import in_fresh_namespace, run

from policies.nft import Nft
from policies.slaves import Slaves

pytestmark = pytest.mark.root

FOUR, SIX = ip_network("10.65.0.0/16"), ip_network("fd00:65::/64")
ARRIVING = Slaves(arriving=(FOUR, SIX))
LEAVING = Slaves(leaving=(FOUR,))


@pytest.fixture(autouse=True)
def iptables() -> None:
    program("iptables-legacy", "iptables")


@pytest.mark.parametrize("name", ["firewalld", "ufw"])
def test_what_comes_to_slaves_needs_rules_of_its_own(name: str) -> None:
    async def body() -> None:
        nft = Nft()
        load(name)
        others = nft.blocking()
        found = nft.blocking(ARRIVING)[len(others) :]
        assert {one.what for one in found} == {"what comes to ipvlan workloads"}
        for command in [command for one in found for command in one.remedy.split("; ")]:
            run(*command.split())
        assert nft.blocking(ARRIVING) == others
        assert nft.blocking(LEAVING) == others, "what goes out is let pass by both"
        nft.close()

    in_fresh_namespace(body)


@pytest.mark.parametrize(
    ("commands", "slaves", "blocked"),
    [
        (["iptables -P INPUT DROP"], ARRIVING, True),
        (["iptables -P INPUT DROP"], LEAVING, False),
        (["iptables -P INPUT DROP"], Slaves(arriving=(SIX,)), False),
        (["ip6tables -P INPUT DROP"], Slaves(arriving=(SIX,)), True),
        (["iptables -P INPUT DROP", "iptables -A INPUT -d 10.65.0.0/16 -j ACCEPT"], ARRIVING,
         False),
        (["iptables -P INPUT DROP", "iptables -A INPUT -d 10.0.0.0/8 -j ACCEPT"], ARRIVING, False),
        (["iptables -P INPUT DROP", "iptables -A INPUT -d 10.65.0.0/24 -j ACCEPT"], ARRIVING, True),
        (["iptables -P INPUT DROP", "iptables -A INPUT -s 10.65.0.0/16 -j ACCEPT"], ARRIVING, True),
        (["iptables -P OUTPUT DROP"], LEAVING, True),
        (["iptables -P OUTPUT DROP", "iptables -A OUTPUT -s 10.65.0.0/16 -j ACCEPT"], LEAVING,
         False),
        (["iptables-legacy -P INPUT DROP"], ARRIVING, True),
        (["iptables-legacy -P INPUT DROP", "iptables-legacy -A INPUT -d 10.65.0.0/16 -j ACCEPT"],
         ARRIVING, False),
        (["iptables-legacy -P INPUT DROP", "iptables-legacy -A INPUT ! -d 10.65.0.0/16 -j ACCEPT"],
         ARRIVING, True),
        (["ip6tables-legacy -P INPUT DROP", "ip6tables-legacy -A INPUT -d fd00::/8 -j ACCEPT"],
         Slaves(arriving=(SIX,)), False),
        (["ip6tables-legacy -P OUTPUT DROP"], Slaves(leaving=(SIX,)), True),
        (["nft add table inet x", "nft add chain inet x i { type filter hook input priority 0; "
          "policy drop; }", "nft add rule inet x i ip daddr 10.65.0.0/16 accept"],
         Slaves(arriving=(FOUR,)), False),
        (["nft add table inet x", "nft add chain inet x i { type filter hook input priority 0; "
          "policy drop; }", "nft add rule inet x i ip daddr 10.65.0.0/16 accept"], ARRIVING, True),
    ],
)  # fmt: skip
def test_chains_at_the_hosts_own_hooks(commands: list[str], slaves: Slaves, blocked: bool) -> None:
    async def body() -> None:
        nft = Nft()
        for command in commands:
            words = [command[4:]] if command.startswith("nft") else command.split()[1:]
            run(command.split()[0], *words)
        found = nft.blocking(slaves)
        assert bool(found) is blocked
        for command in [command for one in found for command in one.remedy.split("; ")]:
            subprocess.run(command.split(), check=True)
        assert nft.blocking(slaves) == [], "the remedy is seen"
        clear()
        nft.close()

    in_fresh_namespace(body)

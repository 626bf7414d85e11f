"""Our pair of rules in DOCKER-USER, and the judgement of other people's firewalls."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from support.docker import program
from support.netns import in_fresh_namespace

from policies import docker
from policies.firewall import IPTABLES, LINK_NAMES, blocking
from policies.nft import Nft
from routed.state import host_interface_name

CHAINS = """
table FAMILY filter {
  chain DOCKER-USER { RULES counter return; }
  chain FORWARD { type filter hook forward priority filter; policy drop;
    counter jump DOCKER-USER
    oifname "docker0" ct state related,established accept
  }
}
"""
IN = 'iifname "rt*" counter accept comment "routed";'
OUT = 'oifname "rt*" counter accept comment "routed";'
PAIR = [f"-{side} rt+ -m comment --comment routed -j ACCEPT" for side in "io"]
END = ["-j RETURN"]
CASES = {
    "empty": ("", [*PAIR, *END]),
    "foreign": ("ip daddr 192.0.2.1 drop;", [*PAIR, "-d 192.0.2.1/32 -j DROP", *END]),
    "there": (IN + OUT, [*PAIR, *END]),
    "half": (OUT, [*PAIR, *END]),
    "twice": (IN + IN + OUT + OUT, [*PAIR, *END]),
    "unreached": ("counter return;" + IN + OUT, [*PAIR, *END, *END]),
    "of an older version": ('iifname "rt0" counter accept comment "routed";', [*PAIR, *END]),
    "by hand": (
        'oifname "rt*" counter accept; iifname "rt*" counter accept;',
        ["-o rt+ -j ACCEPT", "-i rt+ -j ACCEPT", *END],
    ),
    "narrower": (
        'ip saddr 192.0.2.1 iifname "rt*" counter accept;',
        [*PAIR, "-s 192.0.2.1/32 -i rt+ -j ACCEPT", *END],
    ),
}


def make(rules: str, family: str = "ip") -> None:
    text = CHAINS.replace("FAMILY", family).replace("RULES", rules)
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)


def listed(name: str = "iptables") -> list[str]:
    """The chain as iptables reads it, which Docker depends on."""
    words = [name, "-S", "DOCKER-USER"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return [line.removeprefix("-A DOCKER-USER ") for line in done.stdout.splitlines()[1:]]


def ruleset() -> list[dict[str, Any]]:
    words = ["nft", "-j", "list", "ruleset"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)["nftables"]
    return found


def test_our_links_have_the_name_that_the_rules_say() -> None:
    assert host_interface_name("any").startswith(LINK_NAMES.rstrip("*"))


@pytest.fixture
def iptables() -> None:
    """What reads our rules beside us."""
    program("iptables", "iptables")


@pytest.mark.root
@pytest.mark.usefixtures("iptables")
@pytest.mark.parametrize("family", IPTABLES)
@pytest.mark.parametrize("case", CASES)
def test_the_pair_is_there_once_and_nothing_else_is_touched(case: str, family: str) -> None:
    before, after = CASES[case]
    if family == "ip6":
        before = before.replace("ip ", "ip6 ").replace("192.0.2.1", "2001:db8::1")
        after = [line.replace("192.0.2.1/32", "2001:db8::1/128") for line in after]

    async def body() -> None:
        make(before, family)
        nft = Nft()
        assert all(one.docker for one in nft.blocking())
        assert nft.open_docker() is (case not in ("there", "by hand"))
        assert listed(IPTABLES[family]) == after
        assert not nft.open_docker(), "it settles"
        assert nft.blocking() == []
        nft.close()

    in_fresh_namespace(body)


@pytest.mark.root
@pytest.mark.usefixtures("iptables")
def test_rules_that_iptables_saved_and_restored_are_ours_still() -> None:
    async def body() -> None:
        make("")
        nft = Nft()
        assert nft.open_docker()
        saved = subprocess.run(["iptables-save"], capture_output=True, check=True).stdout
        subprocess.run(["iptables-restore"], input=saved, check=True)
        assert not nft.open_docker()
        assert listed() == [*PAIR, *END]
        nft.close()

    in_fresh_namespace(body)


@pytest.mark.root
@pytest.mark.parametrize(
    ("jump", "blocked"),
    [("counter jump DOCKER-USER", False), ("", True), ('iifname "x" jump DOCKER-USER', True),
     ("counter drop; jump DOCKER-USER", True), ("jump other; jump DOCKER-USER", False),
     ("goto DOCKER-USER", False), ("jump passing; jump DOCKER-USER", False)],
)  # fmt: skip
def test_a_pair_that_no_packet_reaches_opens_nothing(jump: str, blocked: bool) -> None:
    text = (
        "table ip filter { chain other { ct state established return; };"
        " chain passing { accept; };"
        f" chain DOCKER-USER {{ {IN} {OUT} }};"
        f" chain FORWARD {{ type filter hook forward priority 0; policy drop; {jump}; }}; }}"
    )

    async def body() -> None:
        subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
        found = blocking(ruleset())
        assert bool(found) is blocked
        for one in found:
            assert not one.docker, "the agent's rules there do not help"
            assert one.remedy.startswith("iptables -I FORWARD -i rt+ -j ACCEPT; ")
        assert docker.commands(ruleset()) == []

    in_fresh_namespace(body)


PASS = "iifgroup 29284 accept; oifgroup 29284 accept;"


@pytest.mark.root
@pytest.mark.parametrize(
    ("policy", "rules", "blocked"),
    [("accept", "", False), ("accept", "ct state invalid drop;", False), ("drop", "", True),
     ("accept", "ct state established accept; jump zones; reject;", True),
     ("accept", "jump zones; jump end;", True), ("drop", "accept;", False),
     ("accept", PASS + "reject;", False), ("drop", PASS, False), ("accept", "drop;" + PASS, True),
     ("drop", PASS.replace(" accept", " limit rate 1/second accept"), True),
     ("drop", PASS.replace("29284", "1"), True), ("drop", "iifgroup 29284 accept;", True)],
)  # fmt: skip
def test_firewalls_of_others(policy: str, rules: str, blocked: bool) -> None:
    text = (
        "table inet wall { chain zones { iifname up0 return; }; chain end { counter drop; };"
        f" chain forward {{ type filter hook forward priority 10; policy {policy}; {rules} }}; }}"
    )

    async def body() -> None:
        subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
        found = blocking(ruleset())
        assert [one.remedy[: len("nft insert rule inet wall forward")] for one in found] == [
            "nft insert rule inet wall forward"
        ] * blocked
        for one in found:
            for command in one.remedy.split("; "):
                subprocess.run(command.split(), check=True)
        assert blocking(ruleset()) == [], "the remedy helps"

    in_fresh_namespace(body)


@pytest.mark.root
@pytest.mark.usefixtures("iptables")
def test_the_native_match_that_would_be_exact_is_one_that_iptables_refuses() -> None:
    """The reason for the name in the rules; when this fails, `iifgroup` can be used."""

    async def body() -> None:
        make("iifgroup 29284 counter accept;")
        words = ["iptables", "-S", "DOCKER-USER"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert "-j ACCEPT" not in done.stdout

    in_fresh_namespace(body)

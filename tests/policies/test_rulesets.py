"""The interpreter of rulesets, on rulesets written by hand that the real nft took and listed."""

from __future__ import annotations

import subprocess
from ipaddress import ip_address
from typing import Any

import pytest
from support.rulesets import Outcome, Packet, Ruleset, Unknown

pytestmark = pytest.mark.root
TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
HEAD = "type filter hook forward priority filter; policy drop;"


def loaded(text: str) -> Ruleset:
    """`text` as the kernel has it."""
    words = ["unshare", "-n", "sh", "-c", "nft -f - && nft -j list ruleset"]
    done = subprocess.run(words, input=text, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return Ruleset(done.stdout)


def packet(
    saddr: str = "10.0.0.1", daddr: str = "10.0.0.2", protocol: int = TCP, **more: Any
) -> Packet:
    ported, pinged = protocol in (6, 17, 132, 136), protocol == (58 if ":" in saddr else 1)
    fill: dict[str, Any] = {"sport": 40_000, "dport": 80} if ported else {}
    fill |= {"type": 8, "code": 0} if pinged else {}
    return Packet(ip_address(saddr), ip_address(daddr), protocol, **{**fill, **more})


def six(protocol: int = TCP, **more: Any) -> Packet:
    return packet("fd00::1", "fd00::2", protocol, **more)


def walked(rules: str, one: Packet, sets: str = "", chains: str = "") -> Outcome:
    """Through a base chain that drops, with these."""
    text = f"table inet t {{\n{sets}\n{chains}\nchain base {{ {HEAD}\n{rules}\n}}\n}}\n"
    return loaded(text).walk(one, "forward")


ADDRESSES = "set a { type ipv4_addr; elements = { 10.0.0.1 } }"
NETS = """set n { type ipv4_addr; flags interval;
    elements = { 10.1.0.0/16, 10.3.0.5, 10.4.0.3-10.4.0.9 } }"""
PORTS = "set p { type ipv4_addr . inet_proto . inet_service; elements = { 10.0.0.2 . tcp . 80 } }"
SPANS = """set c { type ipv4_addr . inet_service; flags interval;
    elements = { 10.0.0.0/8 . 80-90, 10.0.0.2 . 5 } }"""
LINKS = 'set l { type ifname; elements = { "rt1", "rt2" } }'
LINK_MAP = 'map m { type ifname : verdict; elements = { "rt1" : jump x, "rt2" : drop } }'
YES, NO = "accept", "drop"

HOLDS = [
    ("ip saddr @a accept", packet(), YES, ADDRESSES),
    ("ip saddr @a accept", packet("10.0.0.3"), NO, ADDRESSES),
    ("ip saddr @a accept", six(), NO, ADDRESSES),
    ("ip saddr != @a accept", packet(), NO, ADDRESSES),
    ("ip saddr != @a accept", packet("10.0.0.3"), YES, ADDRESSES),
    ("ip saddr != @a accept", six(), NO, ADDRESSES),  # nft asks for the family first
    ("ip daddr @n accept", packet(daddr="10.1.255.255"), YES, NETS),
    ("ip daddr @n accept", packet(daddr="10.2.0.0"), NO, NETS),
    ("ip daddr @n accept", packet(daddr="10.3.0.5"), YES, NETS),
    ("ip daddr @n accept", packet(daddr="10.3.0.6"), NO, NETS),
    ("ip daddr @n accept", packet(daddr="10.4.0.9"), YES, NETS),
    ("ip daddr @n accept", packet(daddr="10.4.0.2"), NO, NETS),
    ("ip daddr . meta l4proto . th dport @p accept", packet(), YES, PORTS),
    ("ip daddr . meta l4proto . th dport @p accept", packet(dport=81), NO, PORTS),
    ("ip daddr . meta l4proto . th dport @p accept", packet(protocol=UDP), NO, PORTS),
    ("ip daddr . meta l4proto . th dport @p accept", packet(protocol=ICMP), NO, PORTS),
    ("ip daddr . meta l4proto . th dport != @p accept", packet(), NO, PORTS),
    ("ip daddr . meta l4proto . th dport != @p accept", packet(dport=81), YES, PORTS),
    ("ip daddr . tcp dport @c accept", packet(dport=90), YES, SPANS),
    ("ip daddr . tcp dport @c accept", packet(dport=91), NO, SPANS),
    ("ip daddr . tcp dport @c accept", packet(dport=5), YES, SPANS),
    ("ip daddr . tcp dport @c accept", packet(daddr="10.0.0.3", dport=5), NO, SPANS),
    ("ip daddr . tcp dport @c accept", packet(protocol=UDP), NO, SPANS),
    ("ip saddr 10.0.0.0/24 ip saddr != 10.0.0.0/25 accept", packet("10.0.0.200"), YES, ""),
    ("ip saddr 10.0.0.0/24 ip saddr != 10.0.0.0/25 accept", packet("10.0.0.100"), NO, ""),
    ("ip saddr 0.0.0.0/0 accept", packet(), YES, ""),
    ("ip saddr 0.0.0.0/0 accept", six(), NO, ""),
    ("ip6 saddr fd00::/8 accept", six(), YES, ""),
    ("ip6 saddr fd00::/8 accept", packet(), NO, ""),
    ("ip6 saddr fd00::8000:0/97 accept", six(), NO, ""),
    ("ip saddr { 10.0.0.0/30, 10.9.9.9 } accept", packet(), YES, ""),
    ("ip saddr 10.0.0.2-10.0.0.5 accept", packet(), NO, ""),
    ("tcp dport { 22, 79-80 } accept", packet(), YES, ""),
    ("tcp dport { 22, 79-80 } accept", packet(dport=78), NO, ""),
    ("tcp dport != { 22, 79-80 } accept", packet(dport=78), YES, ""),
    ("tcp dport != { 22, 79-80 } accept", packet(dport=78, protocol=UDP), NO, ""),
    ("tcp sport 1-1023 accept", packet(sport=1023), YES, ""),
    ("tcp sport != 1-1023 accept", packet(sport=1023), NO, ""),
    ("meta l4proto { 6, 17 } th dport 80 accept", six(UDP), YES, ""),
    ("meta l4proto { 6, 17 } th dport 80 accept", packet(protocol=132), NO, ""),
    ("meta l4proto != 17 accept", packet(), YES, ""),
    ("meta l4proto != 1 accept", six(ICMP), NO, ""),
    ("meta l4proto { 1, 6 } accept", six(ICMP), YES, ""),
    ("meta l4proto 136 th dport 80 accept", packet(protocol=136), YES, ""),
    ("sctp dport 80 accept", packet(protocol=132), YES, ""),
    ("meta nfproto ipv6 tcp dport 80 accept", six(), YES, ""),
    ("meta nfproto ipv6 tcp dport 80 accept", packet(), NO, ""),
    ("meta protocol ip accept", packet(), YES, ""),
    ("ip protocol 6 accept", packet(), YES, ""),
    ("ip6 nexthdr 6 accept", six(), YES, ""),
    ("icmp type echo-request icmp code 0 accept", packet(protocol=ICMP), YES, ""),
    ("icmp type echo-request icmp code 0 accept", packet(protocol=ICMP, code=1), NO, ""),
    ("icmp type 42 accept", packet(protocol=ICMP, type=42), YES, ""),
    ("icmp type != 8 accept", packet(protocol=ICMP, type=3), YES, ""),
    ("icmp type != 8 accept", packet(), NO, ""),
    ("icmpv6 type { 128, 129 } accept", six(ICMPV6, type=129), YES, ""),
    ("icmpv6 type { 128, 129 } accept", six(ICMPV6, type=130), NO, ""),
    ("icmp type . icmp code != { 8 . 0 } accept", packet(protocol=ICMP), NO, ""),
    ("icmp type . icmp code != { 8 . 0 } accept", packet(protocol=ICMP, code=3), YES, ""),
    ("iifname @l accept", packet(iifname="rt2"), YES, LINKS),
    ("iifname @l accept", packet(iifname="rt3"), NO, LINKS),
    ('oifname "rt*" accept', packet(oifname="rt9"), YES, ""),
    ('oifname "rt*" accept', packet(oifname="eth0"), NO, ""),
    ("iifgroup 0x7264 accept", packet(iifgroup=0x7264), YES, ""),
    ("iifgroup { 0x7265, 0x7266 } accept", packet(iifgroup=0x7264), NO, ""),
    ("oifgroup != 0x7264 accept", packet(oifgroup=None), NO, ""),  # no link: the rule is left
    ("ct state established,related accept", packet(state="related"), YES, ""),
    ("ct state established,related accept", packet(), NO, ""),
    ("ct state vmap { new : accept, invalid : drop }", packet(), YES, ""),
    ("ct state { established, new } accept", packet(), YES, ""),
    ("ct status dnat accept", packet(status=frozenset(["dnat"])), YES, ""),
    ("ct status dnat accept", packet(), NO, ""),
    ("fib saddr . iif oif missing accept", packet(routed_back=False), YES, ""),
    ("fib saddr . iif oif exists accept", packet(routed_back=False), NO, ""),
    ("fib daddr type local accept", packet(daddr_type="local"), YES, ""),
    ("fib daddr . mark type != { local, anycast } drop", packet(daddr_type="unicast"), "drop", ""),
    ("fib saddr type local accept", packet(saddr_type="local"), YES, ""),
    ("fib saddr . oif type local accept", packet(saddr_type="unicast"), NO, ""),
    ("meta skuid 0-4294967295 accept", packet(skuid=7), YES, ""),
    ("meta skuid 0-4294967295 accept", packet(), NO, ""),
    ("limit rate 1/second accept", packet(), YES, ""),
    ("limit rate over 1/second accept", packet(), NO, ""),
    ('iifname . oifname { "a" . "b" } accept', packet(iifname="a", oifname="b"), YES, ""),
    ("meta mark 7 accept", packet(mark=7), YES, ""),
    ("ct state new counter accept", packet(), YES, ""),
    ("meta l4proto 6 reject with tcp reset", packet(), "reject tcp reset", ""),
    ("reject", packet(), "reject port-unreachable", ""),
    ("reject with icmpx admin-prohibited", six(), "reject admin-prohibited", ""),
    ("reject with icmp admin-prohibited", packet(), "reject admin-prohibited", ""),
    ("reject with icmp admin-prohibited", six(), "drop", ""),  # passed by, the policy it is
    ("reject with icmpv6 admin-prohibited", packet(), "drop", ""),
]


@pytest.mark.parametrize(("rule", "one", "verdict", "sets"), HOLDS, ids=[h[0] for h in HOLDS])
def test_a_rule_holds_for_what_it_says(rule: str, one: Packet, verdict: str, sets: str) -> None:
    assert walked(rule, one, sets).word == verdict


FLOWS = [
    # (rules of the base chain, other chains, verdict)
    ("jump x\naccept", "chain x { return\ndrop\n}", YES),
    ("jump x\ndrop", "chain x { accept\n}", YES),
    ("goto x\naccept", "chain x { counter\n}", NO),  # nobody comes back: the policy
    ("jump x\naccept", "chain y { counter\n}\nchain x { goto y\ndrop\n}", YES),
    ("jump x\naccept", "chain y { return\ndrop\n}\nchain x { jump y\ndrop\n}", NO),
    ("jump x\ndrop", "chain y { accept\n}\nchain x { jump y\ndrop\n}", YES),
    ("return\naccept", "", NO),
    ("continue\naccept", "", YES),
    ('iifname vmap { "rt1" : goto x }\naccept', "chain x { accept\n}", YES),
    ('iifname vmap { "rt1" : jump x }\naccept', "chain x { return\n}", YES),
    ('iifname vmap { "rt2" : drop }\naccept', "", YES),
    ("ip saddr . tcp dport vmap { 10.0.0.1 . 80 : drop }\naccept", "", NO),
    ("iifname vmap @m\naccept", f"{LINK_MAP}\nchain x {{ drop\n}}", NO),
]


@pytest.mark.parametrize(("rules", "chains", "verdict"), FLOWS)
def test_jump_goto_return_and_maps_of_verdicts(rules: str, chains: str, verdict: str) -> None:
    assert walked(rules, packet(iifname="rt1"), chains=chains).word == verdict


def base(name: str, priority: int, rules: str, hook: str = "forward") -> str:
    return (
        f"chain {name} {{ type filter hook {hook} priority {priority}; policy accept;\n{rules}\n}}"
    )


def test_an_accept_ends_one_base_chain_a_drop_all() -> None:
    both = loaded(f"table inet t {{\n{base('b', 1, 'drop')}\n{base('a', 0, 'accept')}\n}}")
    assert both.walk(packet(), "forward").word == "drop"
    other = "table ip u {\n" + base("c", -1, "tcp dport 80 drop") + "\n}"
    first = loaded(f"{other}\ntable inet t {{\n{base('a', 0, 'accept')}\n}}")
    assert first.walk(packet(), "forward").word == "drop"
    assert first.walk(six(), "forward").word == "accept"  # table ip never sees it
    assert first.walk(packet(), "input").word == "accept"  # nothing is there


def test_what_was_logged_and_which_rules_held_is_told() -> None:
    rules = """limit rate 10/second log prefix "seen " group 5 comment "one"
        tcp dport 81 counter accept comment "two"
        tcp dport 80 counter comment "three"
        jump x comment "four\""""
    outcome = walked(rules, packet(), chains='chain x { drop comment "five"\n}')
    assert outcome.word == "drop"
    assert outcome.rules == ["one", "three", "four", "five"]
    assert outcome.logged == [{"prefix": "seen ", "group": 5}]
    assert outcome.chains == ["base", "x"]


@pytest.mark.parametrize(
    ("rules", "one"),
    [
        ("@th,48,16 80 accept", packet()),
        ("ct mark 1 accept", packet()),
        ("ip ttl 5 accept", packet()),
        ("meta mark set 5", packet()),
        ("quota over 1 bytes drop", packet()),
        ("tcp flags syn accept", packet()),
        ("th dport 80 accept", packet(protocol=ICMP)),  # the kernel reads a checksum there
        ("th dport != 80 accept", packet(protocol=ICMP)),
        ("icmp type 8 accept", six(ICMP)),  # listed alike whether it looks at IPv6 or not
        ("meta l4proto 1 accept", six(ICMP)),  # and whether a family was before it
        ("fib saddr . iif oif missing drop", packet()),  # nothing was said of the way back
        ("fib daddr type local accept", packet()),
        ("meta cgroup 0 accept", packet()),
        ("iifname vmap { * : drop }", packet()),
    ],
)
def test_what_is_not_known_is_never_guessed(rules: str, one: Packet) -> None:
    with pytest.raises(Unknown):
        walked(rules, one)


def test_two_base_chains_of_one_priority_have_no_order_that_is_known() -> None:
    both = loaded(f"table inet t {{\n{base('a', 0, 'drop')}\n{base('b', 0, 'accept')}\n}}")
    with pytest.raises(Unknown, match="priority"):
        both.walk(packet(), "forward")


def test_a_packet_has_what_its_protocol_has() -> None:
    with pytest.raises(ValueError, match="ports"):
        Packet(ip_address("10.0.0.1"), ip_address("10.0.0.2"), TCP)
    with pytest.raises(ValueError, match="ICMP"):
        Packet(ip_address("10.0.0.1"), ip_address("10.0.0.2"), ICMP)
    with pytest.raises(ValueError, match="families"):
        Packet(ip_address("10.0.0.1"), ip_address("fd00::2"), 253)

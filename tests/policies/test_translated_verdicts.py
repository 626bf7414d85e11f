"""Real packets that are translated on their way: policies see the destination after that, and the
source before (docs/policy.md, "Translated addresses")."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from support.catalogue import case, packet
from support.oracles import Evaluated
from support.tables import compiled
from support.wires import HOST, Wires, forget_flows, play

from policies.nat import Nat, PortMapping
from policies.nft import Nft

pytestmark = pytest.mark.root
Make = Callable[[str], str]
ADDRESSES = {"web": ["10.65.0.1", "fd00:65::1"], "db": ["10.65.0.2", "fd00:65::2"]}
NAMED = {**ADDRESSES, "host": list(HOST)}
POOL = ip_network("10.65.0.0/24")
NAT = Nat(
    pools=frozenset([POOL, ip_network("fd00:65::/64")]),
    outgoing=frozenset([POOL]),
    ports=frozenset(PortMapping("tcp", 8080, ip_address(one), 80) for one in ADDRESSES["db"]),
)
OFFICE, OFFICE6 = "198.51.100.7", "2001:db8:1::7"


def allow(port: int, **more: Any) -> dict[str, Any]:
    end = {**more.pop("destination", {}), "ports": [port]}
    return {"action": "Allow", "protocol": "TCP", "destination": end, **more}


FROM_OFFICE = {"source": {"selector": "has(office)"}}
TO_DB = {"destination": {"selector": "app == 'db'"}}
TO_HOST = {"destination": {"nets": ["192.0.2.1/32", "2001:db8::1/128"]}}
OWN = {"source": {"selector": "app == 'db'"}}
REFUSE = {"action": "Deny", "reject": True}
CASES = [
    # (what, the case, sent, as policies see it and it comes, verdict)
    ("a mapped port is the workload's, the client is itself", {"in": [allow(80, **FROM_OFFICE)]},
     f"{OFFICE} > host TCP 8080", f"{OFFICE} > db TCP 80", "allow"),
    ("likewise in IPv6", {"in": [allow(80, **FROM_OFFICE)]},
     f"{OFFICE6} > host6 TCP 8080", f"{OFFICE6} > db6 TCP 80", "allow"),
    ("a rule for the port of the host is none", {"in": [allow(8080, **FROM_OFFICE)]},
     f"{OFFICE} > host TCP 8080", f"{OFFICE} > db TCP 80", "deny"),
    ("others are others", {"in": [allow(80, **FROM_OFFICE)]},
     "8.8.8.8 > host TCP 8080", "8.8.8.8 > db TCP 80", "deny"),
    ("refused in the name of the host", {"in": [REFUSE]},
     f"{OFFICE} > host TCP 8080", f"{OFFICE} > db TCP 80", "reject"),
    ("refused in the name of the host, in IPv6", {"in": [REFUSE]},
     f"{OFFICE6} > host6 TCP 8080", f"{OFFICE6} > db6 TCP 80", "reject"),
    ("of the own host, the workload behind it", {"out": [allow(80, **TO_DB)]},
     "web > host TCP 8080", "web > db TCP 80", "allow"),
    ("of the own host, not the host", {"out": [allow(8080, **TO_HOST)]},
     "web > host TCP 8080", "web > db TCP 80", "deny"),
    ("of the own host, in IPv6", {"out": [allow(80, **TO_DB)], "in": [allow(80)]},
     "web6 > host6 TCP 8080", "web6 > db6 TCP 80", "allow"),
    ("of the own host, the receiver has a say", {"out": [allow(80, **TO_DB)], "in": [REFUSE]},
     "web > host TCP 8080", "web > db TCP 80", "reject"),
    ("hairpin, its own address at both ends", {"in": [allow(80, **OWN)]},
     "db > host TCP 8080", "db > db TCP 80", "allow"),
    ("hairpin, not the host's", {"in": [allow(80, source={"nets": ["192.0.2.1/32"]})]},
     "db > host TCP 8080", "db > db TCP 80", "deny"),
    ("from the host itself", {"in": [{"action": "Deny"}]},
     "host > host TCP 8080", "host > db TCP 80", "allow"),
    ("natOutgoing, the real source and destination",
     {"out": [allow(443, source={"nets": ["10.65.0.1/32"]}, destination={"nets": ["8.8.8.8/32"]})]},
     "web > 8.8.8.8 TCP 443", "web > 8.8.8.8 TCP 443", "allow"),
    ("natOutgoing, not as the host",
     {"out": [allow(443, source={"nets": ["192.0.2.1/32"]})]},
     "web > 8.8.8.8 TCP 443", "web > 8.8.8.8 TCP 443", "deny"),
]  # fmt: skip


def test_policies_see_destinations_after_and_sources_before_translation(namespaces: Make) -> None:
    def body(wires: Wires, table: Nft) -> Counter[str]:
        counts: Counter[str] = Counter()
        wrong = []
        for what, raw, *texts, verdict in CASES:
            scene = replace(case(what, raw).scene, links=wires.links)
            table.sync(NAT, compiled(scene))
            forget_flows()
            sent, judged = (packet(text, NAMED) for text in texts)
            found = wires.verdict(scene, sent, judged), Evaluated(scene, judged).verdict
            if found != (verdict, verdict):
                wrong.append(f"{what}: {found} instead of {verdict}")
            counts[verdict] += 1
        assert not wrong, "\n".join(wrong)
        return counts

    assert play(namespaces, ADDRESSES, HOST, body).startswith(f"{len(CASES)} packets")

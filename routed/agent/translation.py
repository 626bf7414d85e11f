"""What this host translates, from what is known now. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from api.resources.net import IPAddress
from policies.nat import Nat
from routed.agent.attachment import Step
from routed.agent.plan import Facts
from routed.agent.ports import mappings


def nat_of(facts: Facts, sources: Iterable[IPAddress] = ()) -> Nat | None:
    """`sources` are the addresses to hide behind. None without intent: nobody knows the pools."""
    if facts.intent is None:
        return None
    pools = [pool.spec for pool in facts.intent.pools.values()]
    return Nat(
        pools=frozenset(spec.cidr for spec in pools),
        outgoing=frozenset(spec.cidr for spec in pools if spec.nat_outgoing),
        sources=tuple(sources),
        ports=frozenset(
            mapping
            for record in facts.records.values()
            if record.ports and record.step is not Step.DETACHING
            for mapping in mappings(record)
        ),
    )

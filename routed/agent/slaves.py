"""Which pools have addresses in use by workloads of the ipvlan modes, for the judgement of other
people's firewalls: such workloads pass the host's own INPUT and OUTPUT. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from api.resources.net import IPNetwork
from api.resources.workload import IPVLAN, Mode
from policies.slaves import Slaves
from routed.agent.plan import Facts


def slaves(facts: Facts) -> Slaves:
    """Of this host now."""
    if facts.intent is None:
        return Slaves()
    found: dict[Mode, set[IPNetwork]] = {mode: set() for mode in IPVLAN}
    for record in facts.records.values():
        if record.mode in IPVLAN:
            pools = map(facts.intent.pool_index.find, record.addresses)
            found[record.mode].update(pool.spec.cidr for pool in pools if pool is not None)
    both = found[Mode.IPVLAN_L3] | found[Mode.IPVLAN_L3S]
    return Slaves(arriving=_sorted(found[Mode.IPVLAN_L3S]), leaving=_sorted(both))


def _sorted(pools: Iterable[IPNetwork]) -> tuple[IPNetwork, ...]:
    return tuple(sorted(pools, key=lambda one: (one.version, int(one.network_address))))

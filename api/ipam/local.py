"""Whether what a node has agrees with what the service thinks it has: pure, on addresses.

The node is asked itself: its agent for attachments and announcements, its kernel for routes.
Reports follow attachments within a second, so what differs may be on its way: look twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from api.ipam.check import Finding
from api.ipam.table import Table, is_aggregate
from api.resources import IPBlock, IPPool, Workload
from api.resources.ippool import Announce
from api.resources.net import IPAddress, IPNetwork, PrefixIndex, host_prefix


@dataclass(frozen=True, slots=True)
class Local:
    """One node: `attached` are the addresses of each attachment that is ready, `routes` the host
    routes with our mark, `foreign` those of others, `advertised` what the speaker has, or was told
    if it does not say. `tables` are the switches', by peer."""

    node: str
    attached: Mapping[str, Sequence[IPAddress]]
    routes: frozenset[IPAddress]
    advertised: frozenset[IPNetwork]
    foreign: frozenset[IPAddress] = frozenset()
    tables: Mapping[str, Table] = field(default_factory=dict)


def findings(
    here: Local,
    pools: Sequence[IPPool],
    blocks: Sequence[IPBlock],
    workloads: Sequence[Workload],
) -> list[Finding]:
    """What differs; `blocks` and `workloads` of all nodes."""
    own = [block for block in blocks if block.spec.node == here.node]
    reported = {w.metadata.name: w for w in workloads if w.spec.node == here.node}
    found = [*_attachments(here, pools, own, reported), *_leftovers(here, pools, own, reported)]
    return sorted(found, key=lambda one: (one.plural, one.name, one.message))


def _attachments(
    here: Local,
    pools: Sequence[IPPool],
    own: Sequence[IPBlock],
    reported: Mapping[str, Workload],
) -> Iterator[Finding]:
    index = PrefixIndex((b.spec.cidr, b) for b in own if b.spec.cidr is not None)
    pool_index = PrefixIndex((pool.spec.cidr, pool) for pool in pools)
    for name, addresses in here.attached.items():
        workload = reported.get(name)
        if workload is None:
            yield Finding("workloads", name, f"is attached on {here.node}, which is not reported")
        elif set(workload.status.addresses) != set(addresses):
            has = ", ".join(map(str, addresses))
            yield Finding("workloads", name, f"has {has} on {here.node}, reported is another")
        for address in addresses:
            if index.find(address) is None:
                yield Finding("workloads", name, f"{address} is in no block of {here.node}")
            if address not in here.routes:
                yield Finding("workloads", name, f"{address} has no route on {here.node}")
            pool = pool_index.find(address)
            alone = pool is None or pool.spec.announce is not Announce.BLOCKS
            if alone and host_prefix(address) not in here.advertised:
                yield Finding("workloads", name, f"{address} is not announced by {here.node}")


def _leftovers(
    here: Local,
    pools: Sequence[IPPool],
    own: Sequence[IPBlock],
    reported: Mapping[str, Workload],
) -> Iterator[Finding]:
    held = {address for addresses in here.attached.values() for address in addresses}
    for name, workload in reported.items():
        if name not in here.attached and workload.status.addresses:
            yield Finding("workloads", name, f"is reported, and not attached on {here.node}")
    for address in here.routes - held:
        yield Finding("nodes", here.node, f"has a route to {address}, which nothing here has")
    cidrs = [block.spec.cidr for block in own if block.spec.cidr is not None]
    index = PrefixIndex((cidr, cidr) for cidr in cidrs)
    for address in here.foreign:
        if (cidr := index.find(address)) is not None:
            said = f"has a route to {address}, of its block {cidr}, that is not routed's"
            yield Finding("nodes", here.node, said)
    whole = PrefixIndex((pool.spec.cidr, pool) for pool in pools)
    for prefix in here.advertised:
        inside = [c for c in cidrs if c.version == prefix.version and prefix.subnet_of(c)]  # type: ignore[arg-type]
        if not inside:
            yield Finding("nodes", here.node, f"announces {prefix}, which it does not own")
        elif prefix.prefixlen == prefix.max_prefixlen and prefix.network_address not in held:
            pool = whole.find(prefix.network_address)
            if pool is None or not is_aggregate(prefix, pool):
                said = f"announces {prefix}, which nothing here has"
                yield Finding("nodes", here.node, said)

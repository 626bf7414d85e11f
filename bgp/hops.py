"""The next hops of sessions that are up, by the addresses that this host has now.

Those that are not our end of the session come and go meanwhile. What cannot be found out changes
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from api.resources.net import IPAddress
from bgp import addresses
from bgp.rib import Inbound, Outbound
from bgp.seam import Peer


def too_early(peers: Iterable[Peer]) -> list[Peer]:
    """The peers with a link-local address whose session had better not begin yet: until such an
    address of ours on their link has passed duplicate address detection (RFC 4862) the kernel would
    send from another one, for as long as a connect takes, and the peer would see a stranger."""
    narrow = [one for one in peers if one.address.is_link_local]
    held = addresses.usable() if narrow else None
    if held is None:
        return []
    return [
        one
        for one in narrow
        if one.interface is not None and not addresses.has_link_local(one.interface, held)
    ]


def came_up(outbound: Outbound, inbound: Inbound, local: IPAddress | None) -> None:
    """The session is there; `local` is our end of it, where ExaBGP has said it."""
    local = local or _local_end(outbound)
    if local is None:
        outbound.came_up({})
        return
    held = addresses.usable() if inbound.carried - {outbound.peer.address.version} else []
    outbound.came_up(_next_hops(outbound, inbound, local, held), inbound.carried)


def look(sessions: Iterable[tuple[Outbound, Inbound]]) -> list[Outbound]:
    """Give those that are up their next hops anew; those that were looked at."""
    may_change = [
        (outbound, inbound)
        for outbound, inbound in sessions
        if outbound.up and (inbound.carried - {outbound.peer.address.version} or not outbound.hops)
    ]
    held = addresses.usable() if may_change else None
    if held is None:
        return []
    looked_at = []
    for outbound, inbound in may_change:
        local = outbound.hops.get(outbound.peer.address.version) or _local_end(outbound)
        if local is not None:
            outbound.use(_next_hops(outbound, inbound, local, held))
            looked_at.append(outbound)
    return looked_at


def _local_end(outbound: Outbound) -> IPAddress | None:
    """Of a session of which ExaBGP did not say it; at worst what it was the last time."""
    peer = outbound.peer
    found = peer.local_address or addresses.towards(peer.address, peer.interface)
    return found or outbound.told_with.get(peer.address.version)


def _next_hops(
    outbound: Outbound, inbound: Inbound, local: IPAddress, held: list[addresses.Held] | None
) -> dict[int, IPAddress]:
    """From the addresses that we have, or if they are not known (None) what they were."""
    before = outbound.told_with
    if held is None:
        found = list(before.values())
    else:
        found = addresses.on_link_of(local, held, outbound.peer.interface)
    return addresses.next_hops(
        local, inbound.carried, found, extended=inbound.extended, before=before
    )

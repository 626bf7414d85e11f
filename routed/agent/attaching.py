"""Attach and detach: the steps of one workload, in the writer's turn.

Whatever the step at which an agent dies (`routed.steps`), the next one finds what it needs: the
record is written before the kernel is touched and removed after the kernel is clean again, and one
whose detach has begun says so.

What an attach takes does not grow with the number of workloads: nothing here looks at all of them.
"""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING

from api.resources.errors import (
    ApplyError,
    Cause,
    Conflict,
    Invalid,
    PoolExhausted,
    RoutedError,
    StorageError,
    none_such,
)
from api.resources.net import IPAddress, host_prefix
from api.resources.workload import Origin
from policies.nat import PortMapping
from routed.agent import modes, sharing, sizes
from routed.agent.attachment import Attachment, Step, node_born_id
from routed.agent.interfaces import against
from routed.agent.plan import advertisements
from routed.agent.ports import mappings, taken, unreachable
from routed.agent.records import existing
from routed.agent.request import AttachRequest
from routed.agent.translation import nat_of
from routed.steps import Point, reached

if TYPE_CHECKING:
    from routed.agent.agent import Agent
    from routed.agent.intent import Intent

log = logging.getLogger("routed.agent")

TRIES = 5  # to be given an address, with a block more each time


async def attach(agent: Agent, wanted: AttachRequest) -> tuple[Attachment, bool]:
    """Attach, idempotently by (containerID, ifName), else by name and namespace.

    Returns the attachment and whether it is new. Raises Invalid, Conflict, AlreadyExists,
    PoolExhausted (nothing changed), or ApplyError (rolled back).
    """
    path, identity = "", None
    if wanted.netns:
        checked = agent.kernel.check_netns(wanted.netns)
        path, identity = checked.path, checked.identity
    candidate = Attachment.model_construct(  # every part of it was parsed already
        wanted.model_fields_set,  # what was said, beside what goes without saying
        id=node_born_id(wanted.name, agent.settings.node),
        name=wanted.name,
        node=agent.settings.node,
        origin=Origin.NODE,
        netns=path,
        netns_id=identity,
        if_name=wanted.if_name,
        mode=wanted.mode,
        pools=wanted.pools,
        requested=asked(agent.intent, wanted.lease) if wanted.lease else wanted.addresses,
        lease=wanted.lease,
        ip_families=wanted.ip_families,
        addresses=[],
        container_id=wanted.container_id,
        labels=wanted.labels,
        mtu=wanted.mtu or 0,  # derived when its addresses are known
        ports=wanted.ports,
        bandwidth=wanted.bandwidth,
        default_route=wanted.default_route,
        routes=wanted.routes,
        shared_with=shared_with(agent, wanted.name, wanted.shared_with),
        leaving=False,
    )
    held = existing(agent.records, candidate)
    if held is not None and not held.leaving:
        return held, False
    parent = held.parent if held is not None else agent.parent(wanted.mode)
    return await attach_candidate(agent, candidate.model_copy(update={"parent": parent}))


def shared_with(agent: Agent, name: str, asked_for: str) -> str:
    """The id of whose namespace it shares, "" if it shares none. NotFound, Invalid."""
    return sharing.holder_of(name, agent.find(asked_for)) if asked_for else ""


def asked(intent: Intent | None, lease: str) -> list[IPAddress]:
    """The address of a lease. Invalid if there is none of that name."""
    leases = intent.leases if intent else {}
    held = leases.get(lease)
    if held is None or held.spec.address is None:
        said = none_such("AddressLease", lease, sorted(leases)[:10])
        raise Invalid(f"cannot use lease {lease}: {said}", causes=[Cause("lease", said)])
    return [held.spec.address]


async def attach_candidate(agent: Agent, candidate: Attachment) -> tuple[Attachment, bool]:
    """Own the blocks it needs, then attach it in the writer's turn."""
    held = agent.records.get(candidate.id)
    if not candidate.addressed or (held is not None and held.leaving):  # it keeps what it has
        return await agent.writer.run(lambda: put(agent, candidate))
    if candidate.requested:
        with agent.blocks.asked_for(candidate.requested):
            await agent.book.prepare(agent.known_intent(), candidate, agent.control)
            return await agent.writer.run(lambda: put(agent, candidate))
    kept, left = agent.book.keeps(candidate), TRIES
    while True:
        if not kept:  # what it raises is final: there is no room, or nobody to ask
            await agent.book.prepare(agent.known_intent(), candidate, agent.control)
        try:
            return await agent.writer.run(lambda: put(agent, candidate))
        except PoolExhausted:  # others of a burst were quicker, or the block is on its way back
            kept, left = False, left - 1
            if not left:
                raise


async def put(agent: Agent, candidate: Attachment) -> tuple[Attachment, bool]:
    """The writer's job: address, record, kernel, announcement; or nothing at all."""
    with agent.metrics.measured("attach"):
        old = agent.records.get(candidate.id)
        if old is not None and old.step is Step.DETACHING:
            await _take_away(agent, old)  # an earlier try of it was refused
        held = existing(agent.records, candidate)
        if held is not None and held.leaving:
            held = held.model_copy(update={"leaving": False})
            try:
                agent.records.put(held)
            except OSError as error:
                raise _unrecorded(held, error) from error
        if held is not None:
            return held, False
        if candidate.shared_with:
            sharing.check(agent.records, candidate)
        if agent.filtering.nat is None:
            agent.filtering.nat = nat_of(agent.facts(), agent.settings.nat_addresses)
        if not agent.filtering.ready:
            await agent.guard.work_out()
            if (refused := await agent.filtering.keep()) is not None:
                raise refused
        _check_ports(agent, candidate)
        return await _put(agent, candidate), True


def _check_ports(agent: Agent, candidate: Attachment) -> None:
    """Conflict if a port of the host that it is to have is another's, or the host's own."""
    for number, port in enumerate(candidate.ports):
        if not port.host_port:
            continue
        if owner := agent.records.ports.owner(port, candidate.id):
            raise taken(candidate, number, f"is mapped to {owner}")
        try:
            bound = agent.kernel.listener(port.protocol, port.host_port, port.where)
        except OSError as error:
            key = f"{candidate.id} {port.host_port}/{port.protocol}"
            raise ApplyError(key, "find who listens at", error.errno or errno.EIO) from error
        if bound is not None:
            raise taken(candidate, number, f"is the host's own: something listens at {bound}")


async def _put(agent: Agent, candidate: Attachment) -> Attachment:
    intent = agent.known_intent()
    addresses = agent.book.assign(intent, candidate) if candidate.addressed else []
    mtu = agent.mtu(candidate.mtu, addresses)
    record = candidate.model_copy(update={"addresses": addresses, "mtu": mtu})
    refused = (
        unreachable(record)
        or modes.unlimited(record.name, record.mode, record.limits)
        or sizes.too_small(record.name, mtu, addresses)
        or against(record, agent.records.in_namespace(record.netns_id))
        or agent.guard.against(record)
    )
    if refused is not None:
        agent.book.forget(record.id)
        raise refused
    ports = mappings(record)
    reached(Point.ASSIGNED)
    try:
        agent.records.put(record)
        reached(Point.RECORDED)
        await agent.filtering.map_ports(ports, add=True)
        await agent.guard.admit(record)
        if not record.shared_with:
            await agent.kernel.attach(record.endpoint())
        reached(Point.READ_BACK)
    except (RoutedError, OSError) as error:
        agent.records.remove(record.id)
        agent.book.forget(record.id)
        agent.kernel.forget(addresses)
        await _unmap(agent, ports)
        await agent.guard.leave(record)
        if isinstance(error, OSError):
            raise _unrecorded(record, error) from error
        raise
    agent.kernel.forget_ports(one.host_port for one in ports if one.protocol == "udp")
    agent.ready[record.id] = tuple(record.addresses)
    space = agent.kernel.space(record.id)
    said = advertisements(intent, record, record.addresses, agent.book.releasing, space)
    agent.speech.advertise(said)
    reached(Point.ANNOUNCED)
    agent.report_due({record.id})
    return record


def _unrecorded(record: Attachment, error: OSError) -> StorageError:
    full = error.errno == errno.ENOSPC
    return StorageError(f"cannot record {record.id}: {error}", full=full)


async def _unmap(agent: Agent, ports: frozenset[PortMapping]) -> None:
    """Whoever has the address next is not to be reached at these."""
    try:
        await agent.filtering.map_ports(ports, add=False)
    except ApplyError as error:  # the next round tries again, before anybody has the address
        log.error("ports not unmapped: %s", error)
        agent.filtering.ready = False


async def detach(agent: Agent, name: str) -> Attachment:
    """Withdraw, take away route, neighbour and link, let the address cool. NotFound, or Conflict
    where the service declared it."""
    record = agent.find(name)
    if record.origin is Origin.API:
        raise Conflict(
            f"cannot detach {record.id} here: it was declared through the service; "
            f"delete it there (routectl delete workload {record.id})"
        )
    await agent.writer.run(lambda: take_away(agent, record))
    return agent.records.get(record.id) or record


async def take_away(agent: Agent, record: Attachment) -> None:
    """The writer's job; each step can be repeated by the next agent."""
    held = agent.records.get(record.id)
    if held is None:
        return  # two detaches of one attachment: the first has done it
    if held.id in agent.records.sharers and held.step is not Step.DETACHING:
        if not held.leaving:
            leaving = held.model_copy(update={"leaving": True})
            try:
                agent.records.put(leaving)
            except OSError as error:  # it leaves all the same, unless this agent dies meanwhile
                log.error("detach not recorded workload=%s: %s", held.id, error)
                agent.records.hold(leaving)
        return
    with agent.metrics.measured("detach"):
        await _take_away(agent, held)  # another one under its name, if it has come meanwhile
    holder = agent.records.get(held.shared_with)
    if holder is not None and holder.leaving and holder.id not in agent.records.sharers:
        await take_away(agent, holder)


async def bury(agent: Agent, record: Attachment) -> None:
    """Its namespace is gone, for whoever shares it too."""
    for name in sorted(agent.records.sharers.get(record.id, ())):
        sharer = agent.records.get(name)
        if sharer is not None:
            await take_away(agent, sharer)
    await take_away(agent, record)


async def _take_away(agent: Agent, record: Attachment) -> None:
    try:
        agent.records.put(record.model_copy(update={"step": Step.DETACHING}))
    except OSError as error:  # a full disk keeps nobody from leaving
        log.error("detach not recorded workload=%s: %s", record.id, error)
    reached(Point.MARKED)
    agent.speech.withdraw(host_prefix(address) for address in record.addresses)
    reached(Point.WITHDRAWN)
    await _unmap(agent, mappings(record))
    await agent.kernel.detach([record.id], {record.id: record.endpoint()})
    agent.kernel.forget(record.addresses)
    reached(Point.ROUTES_GONE)
    try:
        agent.book.release(record.id, leased=bool(record.lease))
    except OSError as error:  # it cools all the same, unless this agent dies meanwhile
        log.error("cool-down not recorded workload=%s: %s", record.id, error)
    reached(Point.COOLED)
    agent.records.remove(record.id)
    await agent.guard.leave(record)
    reached(Point.FORGOTTEN)
    agent.ready.pop(record.id, None)
    agent.report_due({record.id})
    if record.origin is Origin.API:
        agent.declared.wake()  # it may have been declared again meanwhile

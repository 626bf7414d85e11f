"""Bandwidth limits of workloads: token buckets on links of ours, in both directions.

What a workload is sent is queued on the host side of its link (TBF, tc-tbf(8)). What it sends is
queued on the host as well, where it cannot change it: all that comes in by its link is led through
a link of kind `ifb`, which has the other token bucket. Queued, not dropped at once, so a TCP stream
comes near the limit.

An agent without memory recognises the qdiscs by their handle, and the ifb by its group and by its
name, which is made from the workload's as that of its link is. All goes with the link, but the ifb,
which is reaped.

Sources: include/uapi/linux/{pkt_sched,pkt_cls,rtnetlink}.h, net/sched/{sch_tbf,cls_u32}.c.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from api.resources.errors import ApplyError, Cause, Invalid
from routed.kernel import messages as m
from routed.kernel import observe
from routed.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    Netlink,
    attr,
    attr_text,
    attr_u32,
    attributes,
    message,
    nested,
)
from routed.state import SHAPER_GROUP, Endpoint

RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38
RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 44, 45, 46
CHANGES = (RTM_NEWQDISC, RTM_DELQDISC, RTM_DELTFILTER)  # messages that somebody changed something
NLM_F_ECHO = 0x8
TCA_KIND, TCA_OPTIONS = 1, 2
TCA_TBF_PARMS, TCA_TBF_RATE64, TCA_TBF_BURST = 1, 4, 6
ROOT, INGRESS, INGRESS_HANDLE = 0xFFFF_FFFF, 0xFFFF_FFF1, 0xFFFF_0000
OURS = 0x7264_0000  # the handle of our token buckets
ETHERNET = 1  # TC_LINKLAYER_ETHERNET: rates are worked out by the kernel
TCA_U32_SEL, TCA_U32_ACT, TC_U32_TERMINAL = 5, 7, 1
TCA_ACT_KIND, TCA_ACT_OPTIONS, TCA_MIRRED_PARMS = 1, 2, 2
TCA_EGRESS_REDIR, TC_ACT_STOLEN = 1, 4
ETH_P_ALL = 3
PRIORITY = 1

QUEUE_SECONDS = 0.05  # that a packet may wait at most, beyond the burst
LEAST_QUEUE = 32 * 1024  # bytes
NEEDED = ("sch_tbf", "sch_ingress", "cls_u32", "act_mirred", "ifb")  # parts of Linux
GONE = (errno.ENOENT, errno.EINVAL, errno.ENODEV)

_TCMSG = struct.Struct("=BxxxiIII")  # family, ifindex, handle, parent, info
_RATE = struct.Struct("=BBHhHI")  # cell_log, linklayer, overhead, cell_align, mpu, bytes/s
_QOPT = struct.Struct("=12s12xIII")  # rate, peak rate, limit (bytes), buffer (ticks), mtu
_U64 = struct.Struct("=Q")
_MIRRED = struct.Struct("=IIiiiiI")


@dataclass(frozen=True, slots=True)
class Bucket:
    """`rate` in bytes a second, `burst` and `queue` in bytes."""

    rate: int
    burst: int
    queue: int

    @classmethod
    def of(cls, rate: int, burst: int) -> Bucket:
        """Of bits a second, and bits."""
        size = max(burst // 8, 1)
        queue = size + max(int(rate / 8 * QUEUE_SECONDS), LEAST_QUEUE)
        return cls(rate // 8, size, min(queue, 0x7FFF_FFFF))


def token_bucket(index: int, bucket: Bucket) -> bytearray:
    few = min(bucket.rate, 0xFFFF_FFFF)
    options = _QOPT.pack(_RATE.pack(0, ETHERNET, 0, 0, 0, few), bucket.queue, 0, 0)
    parts = attr(TCA_TBF_PARMS, options) + attr_u32(TCA_TBF_BURST, bucket.burst)
    if bucket.rate > few:
        parts += attr(TCA_TBF_RATE64, _U64.pack(bucket.rate))
    body = _TCMSG.pack(0, index, OURS, ROOT, 0) + attr_text(TCA_KIND, "tbf")
    return message(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, body + nested(TCA_OPTIONS, parts))


def ingress(index: int) -> bytearray:
    body = _TCMSG.pack(0, index, INGRESS_HANDLE, INGRESS, 0) + attr_text(TCA_KIND, "ingress")
    return message(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, body)


def without(index: int, parent: int) -> bytearray:
    return message(RTM_DELQDISC, 0, _TCMSG.pack(0, index, 0, parent, 0))


def redirect(index: int, to: int) -> bytearray:
    """All that comes in by link `index` goes through link `to` first."""
    everything = struct.pack("=BBBxHHhhI", TC_U32_TERMINAL, 0, 1, 0, 0, 0, 0, 0)
    everything += struct.pack("=IIii", 0, 0, 0, 0)
    parms = _MIRRED.pack(0, 0, TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR, to)
    act = attr_text(TCA_ACT_KIND, "mirred")
    act += nested(TCA_ACT_OPTIONS, attr(TCA_MIRRED_PARMS, parms))
    options = attr(TCA_U32_SEL, everything) + nested(TCA_U32_ACT, nested(1, act))
    info = PRIORITY << 16 | struct.unpack("=H", struct.pack("!H", ETH_P_ALL))[0]
    body = _TCMSG.pack(0, index, 0, INGRESS_HANDLE, info) + attr_text(TCA_KIND, "u32")
    return message(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, body + nested(TCA_OPTIONS, options))


def make_shaper(name: str, mtu: int) -> bytearray:
    """The ifb, up."""
    body = m.IFINFO.pack(0, 0, 0, m.IFF_UP, m.IFF_UP) + attr_text(m.IFLA_IFNAME, name)
    body += attr_u32(m.IFLA_MTU, mtu) + attr_u32(m.IFLA_GROUP, SHAPER_GROUP) + m.ONE_QUEUE
    body += nested(m.IFLA_LINKINFO, attr_text(m.IFLA_INFO_KIND, "ifb"))
    return message(m.RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)


def keep(netlink: Netlink, endpoint: Endpoint, index: int) -> int:
    """Make the limits of `endpoint`, whose link on the host is `index`, so; the number of changes.
    ApplyError; Invalid where this kernel cannot."""
    if endpoint.limits is None:
        return 0
    changes = 0
    for what, batch in _differences(netlink, endpoint, index):
        for number in netlink.transact(batch).values():
            if number == errno.EOPNOTSUPP:
                raise _lacking(endpoint, what)
            if number not in GONE:
                raise ApplyError(endpoint.workload, f"limit what {what}", number)
        changes += 1
    if changes:
        for what, _ in _differences(netlink, endpoint, index):  # a kind that is not known: ENOENT
            raise _lacking(endpoint, what)
    return changes


def _lacking(endpoint: Endpoint, what: str) -> Invalid:
    said = f"this kernel cannot limit what {what}: it lacks one of {', '.join(NEEDED)}"
    return Invalid(
        f"cannot attach {endpoint.workload}: {said}; load them (modprobe), or leave bandwidth out",
        causes=[Cause("bandwidth", said)],
    )


def unwanted(observed: observe.Observed, endpoints: Iterable[Endpoint]) -> list[int]:
    """The ifbs of ours that no workload's limit needs: their indexes."""
    wanted = {one.shaper for one in endpoints if one.limits is not None and one.limits.from_rate}
    return [
        link.index
        for name, link in observed.foreign.items()
        if link.group == SHAPER_GROUP and name not in wanted
    ]


def is_ours(data: bytes) -> bool:
    """Whether one of `CHANGES` is of a token bucket of ours."""
    return bool(_TCMSG.unpack_from(data)[2] == OURS)


def found(netlink: Netlink, endpoint: Endpoint | None) -> list[int]:
    """The index of the ifb of a workload, if it has one."""
    if endpoint is None or endpoint.limits is None:
        return []
    link = observe.one_link(netlink, endpoint.shaper)
    return [link.index] if link is not None and link.group == SHAPER_GROUP else []


def _differences(
    netlink: Netlink, endpoint: Endpoint, index: int
) -> Iterator[tuple[str, list[bytearray]]]:
    """What is to be changed, each judged when those before it are done."""
    limits = endpoint.limits
    assert limits is not None
    if limits.to_rate:
        bucket = Bucket.of(limits.to_rate, limits.to_burst)
        if not _has(netlink, index, bucket):
            yield "it is sent", [without(index, ROOT), token_bucket(index, bucket)]
    if not limits.from_rate:
        return
    shaper = observe.one_link(netlink, endpoint.shaper)
    if shaper is None:
        yield "it sends", [make_shaper(endpoint.shaper, endpoint.mtu)]
        shaper = observe.one_link(netlink, endpoint.shaper)
    if shaper is None or shaper.group != SHAPER_GROUP:
        raise _lacking(endpoint, "it sends")
    if not shaper.up:
        yield "it sends", [m.link_up(shaper.index)]
    bucket = Bucket.of(limits.from_rate, limits.from_burst)
    if not _has(netlink, shaper.index, bucket):
        yield "it sends", [without(shaper.index, ROOT), token_bucket(shaper.index, bucket)]
    if not _leads(netlink, index, shaper.index):
        batch = [without(index, INGRESS), ingress(index), redirect(index, shaper.index)]
        yield "it sends", batch


def _has(netlink: Netlink, index: int, bucket: Bucket) -> bool:
    """Whether link `index` has this token bucket. The kernel tells of a burst as the time that it
    takes, in ticks of 64 ns."""
    request = message(RTM_GETQDISC, NLM_F_ECHO, _TCMSG.pack(0, index, 0, ROOT, 0))
    try:
        data = netlink.get(request) or b""
    except OSError:
        return False
    if len(data) < _TCMSG.size or _TCMSG.unpack_from(data)[2] != OURS:
        return False
    found = attributes(data, _TCMSG.size)
    if found.get(TCA_KIND) != b"tbf\0":
        return False
    options = attributes(found.get(TCA_OPTIONS, b""), 0)
    said, queue, buffer, _ = _QOPT.unpack_from(options[TCA_TBF_PARMS])
    rate = _RATE.unpack(said)[-1]
    if TCA_TBF_RATE64 in options:
        (rate,) = _U64.unpack(options[TCA_TBF_RATE64])
    ticks = bucket.burst * 1_000_000_000 // bucket.rate >> 6
    return (rate, queue) == (bucket.rate, bucket.queue) and abs(buffer - ticks) <= 2 + ticks // 100


def _leads(netlink: Netlink, index: int, shaper: int) -> bool:
    """Whether what comes in by link `index` goes through `shaper`."""
    request = message(RTM_GETTFILTER, NLM_F_DUMP, _TCMSG.pack(0, index, 0, INGRESS_HANDLE, 0))
    try:
        answers = netlink.dump(request)
    except OSError:
        return False
    mark = struct.pack("=I", shaper)
    for data in answers:
        options = attributes(attributes(data, _TCMSG.size).get(TCA_OPTIONS, b""), 0)
        for act in attributes(options.get(TCA_U32_ACT, b""), 0).values():
            parms = attributes(attributes(act, 0).get(TCA_ACT_OPTIONS, b""), 0)
            if parms.get(TCA_MIRRED_PARMS, b"")[-4:] == mark:
                return True
    return False

"""The settings that no netlink message carries: forwarding of the host, IPv6 of one link.

Both are written only where they differ. /proc/sys/net is that of the namespace the thread is in,
which is the host's.
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from api.resources.errors import ApplyError
from routed.kernel import messages as m
from routed.kernel import observe
from routed.kernel.netlink import Netlink
from routed.state import ForwardRefused

FORWARD_V4 = Path("/proc/sys/net/ipv4/ip_forward")
FORWARD_V6 = Path("/proc/sys/net/ipv6/conf/all/forwarding")
V6_CONF = Path("/proc/sys/net/ipv6/conf")
RTPROT_RA = 9
DEFAULT_V6 = bytes((m.AF_INET6, 0))


def forward_v4(_: Netlink) -> bool:
    """Forward IPv4; whether that changed anything. ApplyError."""
    return _switch_on(FORWARD_V4)


def forward_v6(netlink: Netlink) -> bool:
    """Forward IPv6; whether that changed anything. ApplyError, ForwardRefused."""
    if forwards_v6():
        return False
    check_forward_v6(netlink)
    return _switch_on(FORWARD_V6)


def check_forward_v6(netlink: Netlink) -> None:
    """ForwardRefused where forwarding is off, and switching it on would cost the host its own
    default route: `accept_ra` would have to be 2, which is not ours to set."""
    if not forwards_v6() and (links := at_risk(netlink)):
        raise ForwardRefused(links)


def forwards_v6() -> bool:
    """False also on a kernel without IPv6."""
    try:
        return FORWARD_V6.read_text(encoding="ascii").strip() != "0"
    except OSError:
        return False


def at_risk(netlink: Netlink) -> list[str]:
    """The links over which the kernel has a default route by router advertisements that it gives
    up when it forwards (rt6_purge_dflt_routers in net/ipv6/route.c): those whose `accept_ra` is 1.
    Where it is 0, a program takes the advertisements in and makes the routes itself."""
    learned = observe.routes(netlink, m.AF_INET6, RTPROT_RA).learned
    indexes = {
        index
        for level, some in learned.items()
        if level[:2] == DEFAULT_V6
        for shape in some.values()
        for _, index in shape.hops
    }
    return [name for name in sorted(map(_link_name, indexes)) if name and _accepts(name) == "1"]


def _link_name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""


def _accepts(name: str) -> str:
    try:
        return (V6_CONF / name / "accept_ra").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _switch_on(path: Path) -> bool:
    try:
        if path.read_text(encoding="ascii").strip() != "0":
            return False
        path.write_text("1", encoding="ascii")
    except OSError as error:
        raise ApplyError(f"sysctl {path}", "set", error.errno or errno.EIO) from error
    return True


def v6_of_link(name: str, *, off: bool) -> None:
    """IPv6 on the host side only where it is used: with it on, an attach costs O(links).
    ApplyError."""
    try:
        _write(f"{V6_CONF}/{name}/disable_ipv6", b"1" if off else b"0")
        if not off:
            _write(f"{V6_CONF}/{name}/accept_ra", b"0")
    except FileNotFoundError as error:
        if off:
            return  # a kernel without IPv6
        raise ApplyError(f"IPv6 of {name}", "switch on", errno.EAFNOSUPPORT) from error
    except OSError as error:
        raise ApplyError(f"IPv6 of {name}", "set", error.errno or errno.EIO) from error


def _write(path: str, value: bytes) -> None:
    """As plainly as can be: this is on the way of every attach."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value)
    finally:
        os.close(descriptor)

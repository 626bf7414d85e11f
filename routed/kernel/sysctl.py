"""The settings that no netlink message carries: forwarding of the host, IPv6 of one link.

Both are written only where they differ. /proc/sys/net is that of the namespace the thread is in,
which is the host's.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from api.resources.errors import ApplyError
from routed.kernel import messages as m
from routed.kernel import observe
from routed.kernel.netlink import Netlink

FORWARD_V4 = Path("/proc/sys/net/ipv4/ip_forward")
FORWARD_V6 = Path("/proc/sys/net/ipv6/conf/all/forwarding")
V6_CONF = Path("/proc/sys/net/ipv6/conf")
RTPROT_RA = 9
DEFAULT_V6 = bytes((m.AF_INET6, 0))


def forward_v4(_: Netlink) -> bool:
    """Forward IPv4; whether that changed anything. ApplyError."""
    return _switch_on(FORWARD_V4)


def forward_v6(netlink: Netlink) -> bool:
    """Forward IPv6; whether that changed anything. ApplyError.

    Refused where it would cost the host its own default route, which it has from router
    advertisements (then `accept_ra` would have to be 2, which is not ours to set).
    """
    if DEFAULT_V6 in observe.routes(netlink, m.AF_INET6, RTPROT_RA).destinations():
        key = f"sysctl {FORWARD_V6}: the default route comes from router advertisements"
        raise ApplyError(key, "set", errno.EPERM)
    return _switch_on(FORWARD_V6)


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

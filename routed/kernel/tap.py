"""Mode tap: a persistent tap device for a virtual machine, which opens it by its name (tuntap(4),
Documentation/networking/tuntap.rst).

A tap is made by an ioctl, not by a message that could carry its group. So it is made without
persistence, gets its marks, and persists last: a crash in between leaves nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from api.resources.errors import ApplyError, Cause, Invalid
from routed.kernel import messages as m
from routed.kernel import observe
from routed.kernel.netlink import Netlink, attr, message
from routed.state import HOST_MAC, LINK_GROUP, Endpoint

DEVICE = "/dev/net/tun"
TUNSETIFF, TUNSETPERSIST = 0x400454CA, 0x400454CB
IFF_TAP, IFF_NO_PI, IFF_TUN_EXCL = 0x0002, 0x1000, 0x8000

_IFREQ = struct.Struct("=16sH22x")


def create(netlink: Netlink, endpoint: Endpoint) -> int | None:
    """The index of a new tap, down; None if there is one already, ours and complete."""
    name = endpoint.host_interface
    held = observe.one_link(netlink, name)
    if held is not None:
        if held.group == LINK_GROUP and held.alias == endpoint.alias:
            return None
        if held.group not in observe.OUR_GROUPS:
            raise observe.not_ours(endpoint.workload, name)
        netlink.transact([m.delete_link(held.index)])
    descriptor = _open(endpoint)
    try:
        flags = IFF_TAP | IFF_NO_PI | IFF_TUN_EXCL
        fcntl.ioctl(descriptor, TUNSETIFF, _IFREQ.pack(name.encode(), flags))
        made = observe.one_link(netlink, name)
        index = made.index if made is not None else 0
        marks = m.IFINFO.pack(0, 0, index, 0, 0) + m.GROUP + attr(m.IFLA_ADDRESS, HOST_MAC)
        batch = [message(m.RTM_SETLINK, 0, marks), m.set_mtu(index, endpoint.mtu)]
        for number in netlink.transact(batch).values():
            raise ApplyError(endpoint.workload, f"mark {name} of", number)
        fcntl.ioctl(descriptor, TUNSETPERSIST, 1)
        return index
    except OSError as error:
        number = error.errno or errno.EIO
        raise ApplyError(endpoint.workload, "make the tap of", number) from error
    finally:
        os.close(descriptor)


def _open(endpoint: Endpoint) -> int:
    try:
        return os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        said = f"{DEVICE} cannot be opened: {error.strerror}"
        raise Invalid(
            f"cannot attach {endpoint.workload} by tap: {said}; load it (modprobe tun), or use "
            "another mode",
            causes=[Cause("mode", said)],
        ) from error

"""Which sockets of the host wait for somebody at a port, asked of the kernel (sock_diag(7)).

A mapped port takes what is meant for such a socket away from it, so it is not mapped. The kernel
selects by port, and of TCP looks at those that listen only. Sockets of loopback addresses do not
count, since nothing is mapped there; nor do UDP sockets with one peer, which are somebody's client.
"""

from __future__ import annotations

import errno
import socket
import struct
from ipaddress import IPv6Address, ip_address

from api.resources.net import IPAddress
from routed.kernel.netlink import NLM_F_DUMP, Netlink, attributes, message

NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY = 4, 20
PROTOCOLS = {"TCP": socket.IPPROTO_TCP, "UDP": socket.IPPROTO_UDP, "SCTP": socket.IPPROTO_SCTP}
CLOSE, LISTEN = 7, 10  # include/net/tcp_states.h; a UDP socket without a peer is closed
STATES = {"TCP": LISTEN, "UDP": CLOSE, "SCTP": LISTEN}
INET_DIAG_SKV6ONLY = 11
UNKNOWN = {errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP}  # no such protocol in this kernel

# inet_diag_req_v2: family, protocol, extensions, states, and of the sockid only the source port
_REQUEST = struct.Struct("=BBBxI2s46x")
_ANSWER = struct.Struct("=BBxx2s2s16s")  # inet_diag_msg: family, state, ports, source
ANSWER_BYTES = 72


def listener(protocol: str, port: int, host_ip: IPAddress | None) -> IPAddress | None:
    """The address at which a socket of this namespace waits for what is sent to `port` of
    `host_ip` (None: of whatever address); None: there is no such socket. OSError."""
    with Netlink(protocol=NETLINK_SOCK_DIAG) as netlink:
        for family in (socket.AF_INET, socket.AF_INET6):
            request = _REQUEST.pack(
                family, PROTOCOLS[protocol], 0, 1 << STATES[protocol], struct.pack("!H", port)
            )
            try:
                answers = netlink.dump(message(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, request))
            except OSError as error:
                if error.errno in UNKNOWN:
                    continue
                raise
            for data in answers:
                if (found := _waiting(data, port)) and _meets(*found, host_ip):
                    return found[0]
    return None


def _waiting(data: bytes, port: int) -> tuple[IPAddress, bool] | None:
    """Where a socket waits, and whether for IPv6 alone; None: not at `port`."""
    family, _, number, _, source = _ANSWER.unpack_from(data)
    if number != struct.pack("!H", port):
        return None
    if family == socket.AF_INET:
        return ip_address(source[:4]), False
    only = attributes(data, ANSWER_BYTES).get(INET_DIAG_SKV6ONLY, b"\0") != b"\0"
    address = IPv6Address(source)
    return address.ipv4_mapped or address, only


def _meets(bound: IPAddress, only_six: bool, host_ip: IPAddress | None) -> bool:
    """Whether what is sent to `host_ip` may be meant for a socket bound to `bound`."""
    if bound.is_loopback:
        return False
    if host_ip is None:
        return True
    if bound.is_unspecified:
        return bound.version == host_ip.version or (bound.version == 6 and not only_six)
    return bound.version == host_ip.version and (host_ip.is_unspecified or bound == host_ip)

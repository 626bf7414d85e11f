"""ExaBGP's configuration for a set of peers, rendered purely from typed values.

`manual-eor`: End-of-RIB is sent by the speaker, after it has announced; ExaBGP's own would come
before anything was announced, and the switches would drop the routes they keep for us (RFC 4724).
Announcements never stand in the configuration: they go through the API.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping

from api.resources.errors import SpeakerError
from bgp.seam import Peer

# RFC 8950: IPv4 prefixes over an IPv6 next hop, wherever the session itself is IPv6
NEXT_HOPS = "  nexthop { ipv4 unicast ipv6; }\n"
_INTERFACE = frozenset(string.ascii_letters + string.digits + "._-@")
_PRINTABLE = frozenset(map(chr, range(33, 127))) - frozenset("\"'\\;{}#")


def render(peers: Iterable[Peer], passwords: Mapping[str, str], run: str) -> str:
    """The configuration; `run` is the command of the bridge, `passwords` by peer name."""
    parts = [f"process routed {{\n  run {run};\n  encoder json;\n}}\n"]
    for peer in sorted(peers, key=lambda one: one.name):
        parts.append(_neighbor(peer, passwords.get(peer.name)))
    return "".join(parts)


def _neighbor(peer: Peer, password: str | None) -> str:
    lines = [
        f"router-id {peer.router_id}",
        f"local-address {peer.local_address or 'auto'}",
        f"local-as {peer.local_as}",
        f"peer-as {peer.remote_as}",
        f"hold-time {peer.hold_time}",
        "manual-eor true",
        "adj-rib-in false",
    ]
    if peer.ttl_security is not None:
        # RFC 5082: sent with 255, accepted down to 255 - hops + 1
        lines += ["outgoing-ttl 255", f"incoming-ttl {256 - peer.ttl_security}"]
    if password is not None:
        lines.append(f'md5-password "{checked_password(peer.name, password)}"')
    if peer.interface is not None:
        lines.append(f"source-interface {checked_interface(peer)}")
    families = "".join(f"ipv{version} unicast; " for version in sorted(peer.carried))
    extended = peer.address.version == 6 and 4 in peer.carried
    restart = (
        f"graceful-restart {peer.graceful_restart_time}; " if peer.graceful_restart_time else ""
    )
    body = "".join(f"  {line};\n" for line in lines)
    return (
        f"neighbor {peer.address} {{\n{body}"
        f"  family {{ {families}}}\n"
        f"{NEXT_HOPS if extended else ''}"
        f"  capability {{ {restart}route-refresh enable; asn4 enable; "
        f"{'nexthop enable; ' if extended else ''}}}\n"
        "  api { processes [ routed ]; neighbor-changes; "
        "receive { parsed; open; update; notification; } }\n}\n"
    )


def checked_interface(peer: Peer) -> str:
    """A link's name that is one word of ExaBGP's configuration."""
    name = peer.interface or ""
    if not 1 <= len(name) <= 15 or not set(name) <= _INTERFACE:
        raise SpeakerError(f"cannot use interface {name!r} of peer {peer.name}: no link's name")
    return name


def checked_password(peer: str, password: str) -> str:
    """A password that means the same to the kernel and in ExaBGP's configuration.

    RFC 2385; Linux takes at most 80 bytes (TCP_MD5SIG_MAXKEYLEN).
    """
    if not 1 <= len(password) <= 80 or not set(password) <= _PRINTABLE:
        raise SpeakerError(
            f"cannot use the password of peer {peer}: it must be 1 to 80 printable ASCII "
            "characters without blanks, quotes, backslash, ';', '{', '}' or '#'"
        )
    return password

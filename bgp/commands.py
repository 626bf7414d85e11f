"""ExaBGP's API commands, made from typed values only.

Free text must never reach a command: ExaBGP finds some of them by substring, and one wrong word
in a community shuts the daemon down. Everything here is digits, dots, colons and fixed words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from api.resources.net import IPAddress, IPNetwork
from bgp.seam import Advertisement

MOST_NLRI = 40  # prefixes in one command


def announce(peer: IPAddress, next_hop: IPAddress, group: Sequence[Advertisement]) -> str:
    """Announce prefixes that share their attributes to one peer."""
    attributes = f"next-hop {next_hop}"
    plain = [c for c in group[0].communities if c.count(":") == 1]
    large = [c for c in group[0].communities if c.count(":") == 2]
    if plain:
        attributes += f" community [{' '.join(plain)}]"
    if large:
        attributes += f" large-community [{' '.join(large)}]"
    prefixes = " ".join(str(one.prefix) for one in group)
    return f"neighbor {peer} announce attributes {attributes} nlri {prefixes}"


def withdraw(peer: IPAddress, next_hop: IPAddress, prefixes: Iterable[IPNetwork]) -> str:
    listed = " ".join(map(str, prefixes))
    return f"neighbor {peer} withdraw attributes next-hop {next_hop} nlri {listed}"


def end_of_rib(peer: IPAddress, version: int) -> str:
    """RFC 4724, section 2: everything of this version of IP that we announce has been sent."""
    return f"neighbor {peer} announce eor ipv{version} unicast"


def flush(peer: IPAddress) -> str:
    """Send everything announced to `peer` once more."""
    return f"neighbor {peer} flush adj-rib out"


CLEAR = "clear adj-rib out"
RELOAD = "reload"
VERSION = "version"  # changes nothing: whether it answers is what is asked

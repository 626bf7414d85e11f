"""BIRD 2 as the switches' and the client's routing daemon."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from routed.lab.fabric import inside, prefix
from routed.lab.processes import Process
from routed.lab.topology import BOTH, Topology, Tor

PACKAGE = "bird2"
PROGRAMS: tuple[str, ...] = ("bird", "birdc")
_KERNEL = """
protocol device { scan time 2; }
protocol direct { ipv4; ipv6; interface "client", "tor*", "lo"; }
protocol kernel { merge paths on limit 16; ipv4 { import none; export where source = RTS_BGP; }; }
protocol kernel { merge paths on limit 16; ipv6 { import none; export where source = RTS_BGP; }; }
"""


def tor_configuration(top: Topology, tor: Tor) -> str:
    """A ToR: hosts by range, each with its own ASN; it keeps their routes over a restart. Every
    session can carry both families, over IPv6 with IPv6 next hops for both (RFC 8950)."""
    over = [(4, "", tor.address, tor.subnet), (6, "6", tor.address6, tor.subnet6)]
    sessions = "".join(
        _hosts(mark, own, subnet, tor.as_number)
        for version, mark, own, subnet in over
        if version in top.versions
    )
    own, client = tor.client_side, top.client_address(tor)
    if 4 not in top.versions:
        own, client = tor.client_side6, top.client_address6(tor)
    return f"""log stderr {{ warning, error, fatal, bug }};
router id {tor.address};
{_KERNEL}
protocol static originated {{ ipv4; route 0.0.0.0/0 unreachable; }}
protocol static originated6 {{ ipv6; route ::/0 unreachable; }}
filter to_hosts {{
  if net = 0.0.0.0/0 then accept;
  if net = ::/0 then accept;
  if source = RTS_BGP then accept;
  reject;
}}
{sessions}protocol bgp outside {{
  local {own} as {tor.as_number};
  neighbor {client} as {top.client_as};
  connect delay time 1;
  hold time 9;
  error wait time 1, 5;
{_channels(own, "where source = RTS_BGP")}}}
"""


def _hosts(mark: str, own: str, subnet: str, number: int) -> str:
    """The sessions with hosts over one family."""
    return f"""protocol bgp hosts{mark} {{
  local {own} as {number};
  neighbor range {subnet} external;
  dynamic name "host{mark and "six"}";
  graceful restart aware;
  hold time 9;
  error wait time 1, 5;
{_channels(own, "filter to_hosts")}}}
"""


def _channels(own: str, let_out: str) -> str:
    """Both families of a session whose own end is `own`."""
    extended = "extended next hop on; " if ":" in own else ""
    what = f"import all; export {let_out}; next hop self;"
    return f"  ipv4 {{ {what} {extended}}};\n  ipv6 {{ {what} }};\n"


def client_configuration(top: Topology) -> str:
    """The client behind the ToRs: it takes every route from every ToR, as ECMP."""
    peers = ""
    for tor in top.tors:
        own, their = top.client_address(tor), tor.client_side
        if 4 not in top.versions:
            own, their = top.client_address6(tor), tor.client_side6
        peers += (
            f"protocol bgp tor{tor.number} {{\n"
            f"  local {own} as {top.client_as};\n"
            f"  neighbor {their} as {tor.as_number};\n"
            "  connect delay time 1;\n"
            "  hold time 9;\n  error wait time 1, 5;\n"
            f"{_channels(own, 'where source = RTS_DEVICE')}}}\n"
        )
    return (
        "log stderr { warning, error, fatal, bug };\n"
        f"router id {top.client_address(top.tors[0])};\n{_KERNEL}{peers}"
    )


def processes(top: Topology, tor: Tor, directory: Path) -> list[Process]:
    """BIRD alone."""
    return [daemon(tor.namespace, tor_configuration(top, tor), directory)]


def daemon(namespace: str, configuration: str, directory: Path) -> Process:
    """BIRD in `namespace`, not started yet."""
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    path = directory / f"{namespace}.conf"
    path.write_text(configuration, encoding="ascii")
    words = ["bird", "-f", "-c", str(path), "-s", str(control(directory, namespace))]
    return Process(namespace, [*prefix(namespace), *words], directory)


def control(directory: Path, namespace: str) -> Path:
    return directory / f"{namespace}.ctl"


def ask(directory: Path, namespace: str, *words: str) -> str:
    """What `birdc` answers."""
    return inside(namespace, "birdc", "-s", str(control(directory, namespace)), *words)


def prefixes(
    directory: Path, namespace: str, versions: Sequence[int] = BOTH
) -> dict[str, list[str]]:
    """The BGP routes of a table: prefix to the next hops of every path in it."""
    found: dict[str, list[str]] = {}
    current, only = "", ["table", f"master{versions[0]}"] if len(versions) == 1 else []
    for line in ask(directory, namespace, "show", "route", *only).splitlines():
        match = re.match(r"([0-9a-f.:]+/\d+)?\s+unicast|([0-9a-f.:]+/\d+)\s", line)
        if match:
            current = match[1] or match[2] or current
        via = re.search(r"via (\S+) on", line)
        if via and current:
            found.setdefault(current, []).append(via[1])
    return found

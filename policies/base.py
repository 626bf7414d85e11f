"""The base table: what holds for every link of ours before any policy.

Rendered purely from constants. It needs no entry per workload: our links are told by their group
(IFLA_GROUP, set in the very message that makes a link), and who may use which address is asked of
the routing table. So the filter is there before the link is, and a link without a host route can
send nothing.

- Anti-spoof: a packet from a link of ours must have a source that is routed back out of that very
  link (`fib saddr . iif oif missing drop`). It catches IPv4 and IPv6 alike, where rp_filter only
  knows IPv4. Neighbour discovery from the unspecified address (RFC 4862, DAD) is let through.
- A workload is no router and no DHCP server: router advertisements, redirects and DHCP answers
  from it are dropped.
- Towards the host itself: replies, echo requests, and neighbour discovery; the rest is dropped.
- A link on its way out (the reap groups) sends and receives nothing.
"""

from __future__ import annotations

import hashlib

TABLE = "routed"
LINK_GROUP = 0x7264
REAP_GROUPS = "{ 0x7265, 0x7266 }"  # on their way out, and just being deleted

_BODY = f"""
  chain antispoof {{
    type filter hook prerouting priority raw; policy accept;
    iifgroup {REAP_GROUPS} counter drop
    iifgroup != {LINK_GROUP} accept
    icmpv6 type {{ nd-router-advert, nd-redirect }} counter drop
    ip6 saddr :: icmpv6 type {{ nd-neighbor-solicit, mld2-listener-report }} accept
    fib saddr . iif oif missing counter drop
    udp sport {{ 67, 547 }} udp dport {{ 68, 546 }} counter drop
  }}
  chain tohost {{
    type filter hook input priority filter; policy accept;
    iifgroup != {LINK_GROUP} accept
    ct state established,related accept
    icmp type echo-request accept
    icmpv6 type {{ echo-request, nd-router-solicit }} accept
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
    counter drop
  }}
  chain leaving {{
    type filter hook postrouting priority raw; policy accept;
    oifgroup {REAP_GROUPS} counter drop
  }}
"""


def version() -> str:
    """What tells this ruleset from another program's or another version's."""
    return hashlib.blake2s(_BODY.encode(), digest_size=8).hexdigest()


def render() -> str:
    """The transaction that makes the table so, whatever was there before."""
    mark = f'  chain version-{version()} {{ comment "the rules of this table"; }}\n'
    return (
        f"table inet {TABLE} {{ }}\ndelete table inet {TABLE}\n"
        f"table inet {TABLE} {{{_BODY}{mark}}}\n"
    )


def expected_rules() -> int:
    """How many rules the table has when nobody took one away."""
    return sum(
        line.strip().endswith(("drop", "accept")) and "policy" not in line
        for line in _BODY.splitlines()
    )

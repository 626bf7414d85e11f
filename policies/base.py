"""The base table: what holds for every link of ours before any policy.

Rendered purely from constants, and beside them what is to be translated (`policies/nat.py`) and
what policies are compiled to (`policies/compile`), whose chains and sets are told by their names.
Whatever somebody has done to the table, it is made right in one transaction: there is no moment
with some of it. The filter needs no entry per workload: our links are told by their group
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
- Every flow is labelled when it begins, where the kernel has labels, by which is told what began
  while this table was away (`policies/away.py`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from policies import nat
from policies.away import BEGUN
from policies.compile import transaction
from policies.compile.closed import closed
from policies.compile.ruleset import NO_POLICIES, Ruleset
from policies.marks import LINK_GROUP, REAP_GROUPS, TABLE
from policies.nat import Nat

WHOLE = f"inet {TABLE}"  # with its family
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


def commands(
    entries: Iterable[Mapping[str, Any]] | None,
    wanted: Nat | None,
    policies: Ruleset | None = None,
    *,
    labels: bool = True,
) -> list[str]:
    """What makes the table right; nothing if it is. `entries` is what nft lists of it, None if it
    is not there. What is None of `wanted` and `policies` is not known yet, and what is there of it
    stays; where it cannot, because all is made anew, nothing is translated, and no flow begins.
    `labels`: the kernel has these."""
    listed = list(entries or ())
    held = transaction.listed(listed)
    first = _BODY + BEGUN if labels else _BODY
    body = nat.body(wanted) if wanted else ""
    contents = nat.elements(wanted) if wanted else {}
    if policies is None:
        rules, change = (closed(held.sets) if held else NO_POLICIES), []
    else:
        rules, change = policies, transaction.commands(WHOLE, held, policies)
    base = [entry for entry in listed if not _is_of_policies(entry)]
    misfit = policies is not None and not transaction.fits(held, rules)
    if misfit or not _is(base, first, body, whole=wanted is not None):
        filling = nat.filling(WHOLE, contents, {})
        whole = _render(first, body, transaction.body(rules))
        return [whole, *filling, *transaction.filling(WHOLE, rules)]
    return [*nat.filling(WHOLE, contents, nat.held(listed)), *change]


def changes(
    before: tuple[Nat | None, Ruleset], wanted: Nat | None, policies: Ruleset
) -> list[str] | None:
    """What makes the table right that has what was put there `before`, and nothing else; None: it
    has to be read."""
    held, rules = before
    filling = []
    if wanted is not None and wanted != held:
        if not wanted or not held or nat.body(wanted) != nat.body(held):
            return None
        filling = nat.filling(WHOLE, nat.elements(wanted), nat.elements(held))
    return [*filling, *transaction.commands(WHOLE, rules, policies)]


def _is_of_policies(entry: Mapping[str, Any]) -> bool:
    rule = entry.get("rule")
    if rule is not None:
        return transaction.is_ours("chain", rule["chain"])
    return any(
        kind in entry and transaction.is_ours(kind, entry[kind]["name"])
        for kind in ("chain", "set")
    )


def _marks(first: str, body: str) -> dict[str, str]:
    """What tells these rules from another program's or another version's."""
    parts = {"version": first, "translation": body}
    return {
        f"{name}-{hashlib.blake2s(part.encode(), digest_size=8).hexdigest()}": name
        for name, part in parts.items()
        if part
    }


def _render(first: str, body: str, rules: str) -> str:
    """The commands that make the table so, whatever was there before."""
    marks = _marks(first, body)
    said = "".join(f'  chain {mark} {{ comment "which rules"; }}\n' for mark in marks)
    whole = f"{first}{body}{said}{rules}"
    return f"table inet {TABLE} {{ }}\ndelete table inet {TABLE}\ntable inet {TABLE} {{{whole}}}"


def _is(listed: list[Mapping[str, Any]], first: str, body: str, *, whole: bool) -> bool:
    """Whether the table has all the rules of `first` and of `body`; if `whole`, no others. One that
    somebody has put to sleep (`flags dormant`) has none."""
    if any(entry["table"].get("flags") for entry in listed if "table" in entry):
        return False
    chains = {entry["chain"]["name"] for entry in listed if "chain" in entry}
    rules = Counter(entry["rule"]["chain"] for entry in listed if "rule" in entry)
    wanted, marks = _rules(first + body), _marks(first, body)
    if whole:
        return rules == wanted and {*wanted, *marks} == chains
    return chains >= marks.keys() and all(rules[name] == count for name, count in wanted.items())


def _rules(body: str) -> Counter[str]:
    """How many rules each chain has when nobody took one away."""
    found: Counter[str] = Counter()
    for line in body.splitlines():
        if line.startswith("  chain "):
            name = line.split()[1]
        elif line.startswith("    ") and "policy" not in line:
            found[name] += 1
    return found

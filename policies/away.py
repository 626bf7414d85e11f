"""What holds while our table is away: somebody has flushed it, and it is not back yet.

A table of its own that is owned (NFT_TABLE_F_OWNER, Linux 5.12) by the socket that made it: nobody
else can change it, a flush of everything passes it over, and it goes with the socket, so an agent
that has died leaves nothing behind. It is not the table itself that is owned: that one has to
outlive the agent, is filled by other programs where there is much of it, and has to be made anew in
one transaction (ADR 11).

It lets no flow of a workload begin that our table has not seen begin. That is told by a label of
connection tracking, which our table sets before anything is judged. Flows that were there before
(confirmed), what is established or related, and what nobody tracks go on; so does all that is of no
workload: nobody is locked out of his host by it. Pure.
"""

from __future__ import annotations

from policies.marks import AWAY, LINK_GROUP

LABEL = 82  # a bit of 128
# a part of our table, after connection tracking and before all that judges
BEGUN = f"""
  chain begun {{
    type filter hook prerouting priority mangle; policy accept;
    ct state new ct label set {LABEL}
  }}
  chain begun-here {{
    type filter hook output priority mangle; policy accept;
    ct state new ct label set {LABEL}
  }}
"""
_SIDES = {"forward": ("iif", "oif"), "input": ("iif",)}


def text() -> str:
    """The commands that make it, for the socket that has none yet."""
    chains = "".join(_chain(hook, sides) for hook, sides in _SIDES.items())
    return f"table inet {AWAY} {{\n  flags owner;\n{chains}}}"


def _chain(hook: str, sides: tuple[str, ...]) -> str:
    drops = "".join(f"    {side}group {LINK_GROUP:#x} counter drop\n" for side in sides)
    return (
        f"  chain at-{hook} {{\n    type filter hook {hook} priority 100; policy accept;\n"
        "    ct state != new accept\n    ct status & confirmed != 0 accept\n"
        f"    ct label {LABEL} accept\n{drops}  }}\n"
    )

"""What is ours, as nftables sees it: our table, and the groups of our links (IFLA_GROUP)."""

from __future__ import annotations

TABLE = "routed"
AWAY = "routed-away"  # see policies/away.py
TABLES = (TABLE, AWAY)
LINK_GROUP = 0x7264
SLAVE_GROUP = 0x7267  # the host's own slaves: its way to workloads of the ipvlan modes
REAP_GROUPS = "{ 0x7265, 0x7266 }"  # on their way out, and just being deleted
OUR_GROUPS = f"{{ {LINK_GROUP:#x}, 0x7265, 0x7266, {SLAVE_GROUP:#x} }}"

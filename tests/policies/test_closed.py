"""What holds where nobody knows the policies: the kernel takes it, and finds it again. Real packets
meet it in tests/guest, and those of links in tests/policies/test_no_window.py."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from support.netns import in_fresh_namespace, run

from policies.compile import ipvlan, names
from policies.compile.closed import closed
from policies.compile.ruleset import NO_POLICIES
from policies.model import Ipvlan
from policies.nft import Nft

pytestmark = pytest.mark.root
ONE, FREE = "10.65.0.1", "fd00:65::2"
SLAVES = Ipvlan(
    frozenset(map(ip_address, (ONE, FREE))),
    unjudged=frozenset([ip_address(FREE)]),
    parents=frozenset(["up0"]),
)


def test_it_is_of_links_alone_where_there_is_nobody_else() -> None:
    links = {"policy-egress", "policy-ingress", "policy-tohost"}
    assert closed().chains.keys() == links
    assert closed(ipvlan.sets(Ipvlan())) == closed()
    some = dict(list(ipvlan.sets(SLAVES).items())[:2])
    assert closed(some) == closed(), "of a table that somebody has torn"
    both = closed(ipvlan.sets(SLAVES))
    assert both.chains.keys() > links
    assert both.sets[names.slaves(4)].elements == {ONE}
    assert both.sets[ipvlan.unjudged(6)].elements == {FREE}


def test_the_kernel_has_it_as_it_is() -> None:
    async def body() -> None:
        table, wanted = Nft(), closed(ipvlan.sets(SLAVES))
        assert table.sync(None, wanted)
        assert not Nft().sync(None, wanted), "read back by one who knows nothing"
        table.close()

    in_fresh_namespace(body)


def test_a_table_made_anew_by_one_without_intent_closes_whom_it_held() -> None:
    """Somebody has taken a chain of the base table: all is made anew."""

    async def body() -> None:
        table, wanted = Nft(), closed(ipvlan.sets(SLAVES))
        table.sync(None, wanted)
        run("nft", "add", "rule", "inet", "routed", "antispoof", "counter")
        other = Nft()
        assert other.sync(None, None)
        assert not Nft().sync(None, wanted)
        table.sync(None, NO_POLICIES)
        table.close()

    in_fresh_namespace(body)

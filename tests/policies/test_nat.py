"""What leaves a pool with natOutgoing is hidden behind the host, nothing else: real flows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from support.flows import Outside, connected, heard, listen
from support.kernels import endpoint
from support.netns import in_fresh_namespace, run

from policies.nat import Nat, PortMapping
from policies.nft import Nft
from routed.kernel.linux import LinuxKernel
from routed.state import HostState

pytestmark = pytest.mark.root
Make = Callable[[str], str]

HIDDEN, SIX = ip_network("10.65.0.0/24"), ip_network("fd00:65::/64")
SHOWN, OTHER = ip_network("10.66.0.0/24"), ip_network("fd00:66::/64")
NAT = Nat(pools=frozenset([HIDDEN, SIX, SHOWN, OTHER]), outgoing=frozenset([HIDDEN, SIX]))


@pytest.mark.parametrize(
    ("own", "host", "far", "pooled"),
    [
        ("10.65.0.1", "192.0.2.1", "192.0.2.2", "10.66.0.9"),
        ("fd00:65::1", "2001:db8::1", "2001:db8::2", "fd00:66::9"),
    ],
)
def test_a_source_is_hidden_towards_what_is_in_no_pool(
    namespaces: Make, own: str, host: str, far: str, pooled: str
) -> None:
    inside, shown, out = namespaces("a"), namespaces("b"), namespaces("out")

    async def body() -> None:
        kernel, table = LinuxKernel(), Nft()
        assert table.sync(NAT)
        Outside(out)
        other = "10.66.0.1" if "." in own else "fd00:66::1"
        one, two = endpoint("a.h", inside, own), endpoint("b.h", shown, other)
        await kernel.sync(HostState(endpoints={"a.h": one, "b.h": two}))
        six = ("-6",) if ":" in own else ()
        never_the_source = ("nodad", "preferred_lft", "0") if six else ()
        run("ip", "-n", out, "addr", "add", pooled, "dev", "far0", *never_the_source)
        run("ip", *six, "route", "add", pooled, "via", far)
        servers = {at: listen(out, at) for at in (far, pooled)}
        mine = listen(inside, own)
        for netns, to, seen in (
            (inside, far, host),
            (inside, pooled, own),  # between pools
            (shown, far, other),  # of a pool that is not hidden
        ):
            connected(netns, to).close()
            assert heard(servers[to]) == seen
        connected(out, own).close()  # its /32 is there for everybody
        assert heard(mine) == far
        connected(shown, own).close()
        assert heard(mine) == other
        for server in (*servers.values(), mine):
            server.kill()

    in_fresh_namespace(body)


@pytest.mark.parametrize(
    ("own", "far", "source"),
    [("10.65.0.1", "192.0.2.2", "198.18.0.1"), ("fd00:65::1", "2001:db8::2", "2001:db8:9::1")],
)
def test_the_source_may_be_an_address_of_the_host_that_all_know(
    namespaces: Make, own: str, far: str, source: str
) -> None:
    inside, out = namespaces("a"), namespaces("out")

    async def body() -> None:
        kernel, table = LinuxKernel(), Nft()
        assert table.sync(replace(NAT, sources=(ip_address(source),)))
        Outside(out)
        await kernel.sync(HostState(endpoints={"a.h": endpoint("a.h", inside, own)}))
        run("ip", "addr", "add", source, "dev", "lo")
        server = listen(out, far)
        connected(inside, far).close()
        assert heard(server) == source
        server.kill()
        assert table.sync(NAT), "another source is another rule"

    in_fresh_namespace(body)


def test_only_what_differs_is_changed_and_what_was_flushed_is_back() -> None:
    async def body() -> None:
        table = Nft()

        def listed() -> str:
            return run("nft", "list", "table", "inet", "routed")

        def handle() -> str:
            rules = run("nft", "-a", "list", "chain", "inet", "routed", "tohost")
            return rules.rpartition("# handle ")[2]

        assert table.sync(None)
        assert "masquerade" not in listed(), "nothing of it costs who does not use it"
        assert not table.sync(Nat(pools=NAT.pools))
        assert table.sync(NAT)
        whole, first = listed(), handle()
        assert not table.sync(NAT)
        assert not table.sync(None), "what is not known yet stays"
        fewer = Nat(pools=NAT.pools - {SHOWN}, outgoing=frozenset([SIX]))
        assert table.sync(fewer)
        assert str(SHOWN) not in listed()
        assert table.sync(NAT)
        assert (listed(), handle()) == (whole, first), "sets were filled, no rule was touched"
        run("nft", "flush", "set", "inet", "routed", "outgoing4")
        assert table.sync(NAT)
        run("nft", "flush", "chain", "inet", "routed", "masquerading")
        assert table.sync(NAT)
        run("nft", "flush", "ruleset")
        assert table.sync(NAT)
        assert listed() == whole
        assert table.sync(Nat())
        assert "masquerade" not in listed()

    in_fresh_namespace(body)


@pytest.mark.parametrize(
    ("name", "element"),
    [
        ("pools4", "10.0.0.1-10.0.0.5"),
        ("pools4", '10.0.0.1 comment "x"'),
        ("outgoing6", 'fd00:77::/64 comment "x"'),
        ("looped4", '10.65.0.9 . 10.65.0.9 comment "x"'),
        ("ports4", 'tcp . 9090 comment "x" : 10.65.0.9 . 80'),
        ("hostports6", 'fd00::1 . udp . 53 comment "x" : fd00:65::9 . 53'),
    ],
)
def test_an_element_that_is_like_none_of_ours_goes(name: str, element: str) -> None:
    async def body() -> None:
        table = Nft()
        mapping = PortMapping("tcp", 8080, ip_address("10.65.0.1"), 80)
        wanted = replace(NAT, ports=frozenset([mapping]))
        assert table.sync(wanted)
        whole = run("nft", "list", "table", "inet", "routed")
        run("nft", f"add element inet routed {name} {{ {element} }}")
        assert table.sync(wanted)
        assert run("nft", "list", "table", "inet", "routed") == whole
        assert not table.sync(wanted)

    in_fresh_namespace(body)

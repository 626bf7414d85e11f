"""Elements that come and go by nfnetlink itself: nothing else is asked of the kernel for them."""

from __future__ import annotations

import asyncio
import errno
import subprocess
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from support.compiled import KNOWN, S4, TABLE, WEB, endpoints, handles, listed, policy
from support.netns import in_fresh_namespace, run

from api.resources.errors import ApplyError
from policies.compile import changes
from policies.compile.compiler import compiled
from policies.compile.ruleset import ADDRESSES, LINKS, NETS, PORTS, Delta, Ruleset
from policies.elements import MOST, Elements, key
from policies.model import Membership
from policies.nft import Nft
from policies.plan import plan

pytestmark = pytest.mark.root
NAMED = {
    "action": "Allow",
    "protocol": "TCP",
    "source": {"selector": "app == 'web'"},
    "destination": {"ports": ["http"]},
}


def made() -> Ruleset:
    known = Membership(KNOWN.selectors, {("http", ""): frozenset()})
    policies = [policy("p", ingress=[NAMED], egress=[WEB])]
    return compiled(plan([], policies, endpoints(3, app="db")), known)


def silent(table: Nft) -> list[str]:
    """What is asked of libnftables from now on."""
    ran: list[str] = []
    kept: Callable[..., str] = table.run

    def running(commands: str, *rest: str) -> str:
        ran.append(commands)
        return kept(commands, *rest)

    table.run = running  # type: ignore[method-assign]
    return ran


@pytest.mark.parametrize(
    ("name", "elements"),
    [
        ("links-", ["rt77", "a-long-name-123"]),
        ("selector4-", ["10.0.0.1", "255.255.255.255"]),
        ("selector6-", ["fd00::1", "::ffff:102:304"]),
        ("named4-", ["10.0.0.1 . 6 . 80", "10.0.0.1 . 132 . 65535"]),
        ("named6-", ["fd00::1 . 17 . 53"]),
    ],
)
def test_elements_of_every_kind_are_those_that_nft_would_make(
    name: str, elements: list[str]
) -> None:
    async def body() -> None:
        table, before = Nft(), made()
        table.sync(None, before)
        whole, rules = listed(), handles()
        place = next(one for one in before.sets if one.startswith(name))
        ran = silent(table)
        with_them = before.changed(place, add=elements)
        assert table.sync(None, with_them, trusted=True)
        assert not table.sync(None, with_them, trusted=True)
        assert ran == []
        assert handles() == rules
        assert not Nft().sync(None, with_them), "as listed, nothing is missing"
        less = with_them.changed(place, gone=elements[:1]).changed(place, gone=elements[1:])
        assert table.sync(None, less, trusted=True)
        assert ran == []
        assert listed() == whole

    in_fresh_namespace(body)


def test_what_is_wrong_with_one_refuses_all_of_them() -> None:
    async def body() -> None:
        before = made()
        Nft().sync(None, before)
        whole, elements = listed(), Elements()
        some = Delta(S4, ADDRESSES[4], frozenset(["10.0.0.1"]), frozenset())
        gone = Delta(S4, ADDRESSES[4], frozenset(), frozenset(["10.0.0.2"]))
        with pytest.raises(ApplyError) as caught:
            elements.change([some, gone])
        assert caught.value.errno == 2
        assert listed() == whole
        assert elements.change([some]), "and the next one is none the worse for it"
        assert listed() != whole
        elements.close()

    in_fresh_namespace(body)


def test_others_are_for_libnftables() -> None:
    assert key(NETS[4], "10.0.0.0/8") is None
    assert key(LINKS, "a-name-that-is-too-long") is None
    assert key(PORTS[4], "10.0.0.1 . 6 . 80") == bytes([10, 0, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0])

    async def body() -> None:
        table, before = Nft(), made()
        table.sync(None, before)
        ran = silent(table)
        many = [str(ip_address(0x0A000000 + number)) for number in range(MOST + 1)]
        assert table.sync(None, before.changed(S4, add=many), trusted=True)
        assert len(ran) == 1
        assert len(listed()[f"set {S4}"]["elem"]) == MOST + 1

    in_fresh_namespace(body)


def test_a_ruleset_knows_what_it_was_made_of_and_keeps_none_of_it() -> None:
    first = made()
    one = first.changed(S4, add=["10.0.0.1", "10.0.0.2"])
    two = one.changed(S4, add=["10.0.0.2"], gone=["10.0.0.1", "10.0.0.9"])
    (step,) = two.since(one) or ()
    assert (step.add, step.gone) == (frozenset(), frozenset(["10.0.0.1"]))
    assert [len(two.since(other) or ()) for other in (two, one, first)] == [0, 1, 2]
    assert made().since(first) is None
    assert two.sets[S4].elements == {"10.0.0.2"}
    last = two
    assert last.changed(S4, add=["10.0.0.2"]) is last
    for number in range(50):
        last = last.changed(S4, add=[f"10.0.1.{number}"])
    assert last.since(first) is None, "that was long ago"
    gone = first.changed(S4, add=["10.0.0.5"]).changed(S4, add=["10.0.0.6"])
    assert gone.origins[0][0]() is None
    assert len(gone.since(first) or ()) == 2


def test_nobody_hears_of_our_own_elements() -> None:
    """They are passed over by the port of the socket that they come by."""

    async def body() -> None:
        table, before = Nft(), made()
        table.sync(None, before)
        heard: list[bool] = []

        async def listening() -> None:
            async for touched in table.watch():
                heard.append(touched)

        task = asyncio.create_task(listening())
        while not heard:  # the first one comes at once
            await asyncio.sleep(0.01)
        heard.clear()
        assert table.sync(None, before.changed(S4, add=["10.0.0.1"]), trusted=True)
        run("nft", "add", "element", *TABLE.split(), S4, "{ 10.0.0.9 }")
        while not heard:
            await asyncio.sleep(0.01)
        assert heard == [True]
        run("nft", "add", "table", "inet", "other")
        while len(heard) < 2:
            await asyncio.sleep(0.01)
        table.sync(None, before)
        heard.clear()
        assert table.sync(
            None, changes.moved(before, "app == 'web'", [ip_address("10.0.0.2")]), trusted=True
        )
        run("nft", "add", "table", "inet", "another")
        while not heard:
            await asyncio.sleep(0.01)
        assert heard == [False], "only the table of others was heard of"
        task.cancel()

    in_fresh_namespace(body)


def test_the_generation_is_one_more_with_each_transaction_of_anybody() -> None:
    async def body() -> None:
        elements, table = Elements(), Nft()
        first = elements.generation()
        assert elements.generation() == first
        run("nft", "add table inet other; add chain inet other x")
        assert elements.generation() == first + 1
        table.sync(None, made())
        assert elements.generation() == first + 2
        assert elements.change([Delta(S4, ADDRESSES[4], frozenset(["10.0.0.1"]), frozenset())])
        assert elements.generation() == first + 3
        elements.close()
        with pytest.raises(ApplyError):
            elements.generation()

    in_fresh_namespace(body)


def test_what_another_did_is_found_though_elements_came_before_it_was_heard_of() -> None:
    async def body() -> None:
        table, before = Nft(), made()
        table.sync(None, before)
        subprocess.run(["nft", "flush chain inet routed policy-ingress"], check=True, timeout=10)
        links = next(name for name in before.sets if name.startswith("links-"))
        more = before.changed(links, add=["rt77"])
        assert table.sync(None, more, trusted=True)
        assert table.sync(None, more), "it is read again"
        assert not Nft().sync(None, more)

    in_fresh_namespace(body)


def test_what_cannot_be_started_is_done_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_none(*_arguments: object, **_named: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    async def body() -> None:
        monkeypatch.setattr("policies.nft.subprocess.run", run_none)
        before = made()
        assert Nft().sync(None, before)
        assert not Nft().sync(None, before)

    monkeypatch.setattr("policies.nft.BULK", 100)
    in_fresh_namespace(body)

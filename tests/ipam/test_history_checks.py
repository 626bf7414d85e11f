"""The judge of histories, on histories written by hand: what is wrong is found, what only looks
wrong is not."""

from __future__ import annotations

from typing import Any

import pytest
from support.histories.judge import History
from support.histories.pools import Pool
from support.histories.record import (
    ADDRESSES,
    FULL,
    GONE,
    NO,
    OK,
    UNKNOWN,
    Operation,
    Seen,
)

POOL = Pool("p", "10.0.0.0/30", 31, cooldown=10)
FIXED = Pool("f", "10.0.1.0/31", 32, fixed=True)
B0, B1 = "10-0-0-0-31", "10-0-0-2-31"
NOTHING: dict[str, dict[str, str]] = {"ipblocks": {}, "addressleases": {}, "workloads": {}}


def op(process: str, verb: str, span: tuple[float, float], outcome: str = OK, **more: Any) -> Any:
    more = {"plural": "ipblocks", **more}
    return Operation(process, verb, more.pop("plural"), outcome, *span, **more)


def claim(process: str, uid: str, span: tuple[float, float], name: str = B0, **more: Any) -> Any:
    return op(process, "create", span, name=name, uid=uid, what=name, pool="p", **more)


def delete(process: str, uid: str, span: tuple[float, float], outcome: str = OK) -> Any:
    return op(process, "delete", span, outcome, name=B0, uid=uid)


def assign(process: str, owner: str, span: tuple[float, float], address: str = "10.0.0.0") -> Any:
    return op(
        process, "create", span, plural=ADDRESSES, name=address, uid=owner, what=address, pool="p"
    )


def free(process: str, owner: str, span: tuple[float, float]) -> Any:
    return op(process, "delete", span, plural=ADDRESSES, name="10.0.0.0", uid=owner)


def lease(uid: str, address: str, span: tuple[float, float]) -> Any:
    return op("n1", "create", span, plural="addressleases", name=uid, uid=uid, what=address)


def judged(
    *operations: Operation,
    seen: tuple[Seen, ...] = (),
    blocks: dict[str, str] | None = None,
    leases: dict[str, str] | None = None,
) -> dict[str, list[str]]:
    final = {**NOTHING, "ipblocks": blocks or {}, "addressleases": leases or {}}
    return History(operations, seen, final, {"p": POOL, "f": FIXED}).violations()


# -- one owner ------------------------------


def test_two_are_sure_of_a_block_at_once() -> None:
    found = judged(
        claim("n1", "a", (0, 1)), claim("n2", "b", (3, 4)), delete("n1", "a", (5, 6)),
        blocks={B0: "b"},
    )  # fmt: skip
    assert [*found] == ["one owner"]
    assert "10-0-0-0-31" in found["one owner"][0]


@pytest.mark.parametrize("answer", [OK, UNKNOWN, GONE])
def test_who_has_asked_to_give_back_is_sure_no_more(answer: str) -> None:
    first = [delete("n1", "a", (2, 9), UNKNOWN)] if answer == GONE else []
    history = [claim("n1", "a", (0, 1)), *first, delete("n1", "a", (2, 9), answer)]
    assert not judged(*history, claim("n2", "b", (2.5, 3)), blocks={B0: "b"})


def test_who_was_refused_to_give_back_still_has_it() -> None:
    history = [claim("n1", "a", (0, 1)), delete("n1", "a", (2, 3), NO)]
    assert "one owner" in judged(*history, claim("n2", "b", (4, 5)), blocks={B0: "b"})


def test_a_claim_without_an_answer_is_no_owner() -> None:
    unknown = op("n1", "create", (0, 1), UNKNOWN, pool="p")
    assert not judged(unknown, claim("n2", "b", (2, 3)), blocks={B0: "b"})


def test_the_same_node_twice_is_two_owners() -> None:
    """A late release has taken the second claim away from it, or there never was one."""
    history = [claim("n1", "a", (0, 1)), claim("n1", "b", (2, 3))]
    assert "one owner" in judged(*history, blocks={B0: "b"})


def test_an_overlap_behind_a_short_one_is_found() -> None:
    history = [
        claim("n1", "a", (0, 1)),
        claim("n2", "b", (2, 3)), delete("n2", "b", (4, 5)),
        claim("n3", "c", (6, 7)),
    ]  # fmt: skip
    assert len(judged(*history, blocks={B0: "a"})["one owner"]) == 2


def test_an_address_assigned_twice() -> None:
    one, two = assign("n1", "w1", (0, 1)), assign("n2", "w2", (2, 3))
    assert [*judged(one, two)] == ["one owner"]
    assert not judged(one, assign("n2", "w2", (2, 3), "10.0.0.1"))


def test_an_address_leased_twice() -> None:
    one, two = lease("a", "10.0.1.0", (0, 1)), lease("b", "10.0.1.0", (0, 1))
    assert [*judged(one, two, leases={"a": "a", "b": "b"})] == ["one owner"]
    assert not judged(one, lease("b", "10.0.1.1", (0, 1)), leases={"a": "a", "b": "b"})


# -- cool-down ------------------------------


@pytest.mark.parametrize(("assigned", "warm"), [(11.9, True), (12.1, False)])
def test_an_address_that_is_still_warm(assigned: float, warm: bool) -> None:
    """Freed at 2 at the earliest, it may be had from 12 on."""
    history = [assign("n1", "w1", (0, 1)), free("n1", "w1", (2, 3))]
    found = judged(*history, assign("n1", "w2", (4, assigned)))
    assert ("cool-down" in found) is warm


# -- what was acknowledged ------------------------------


def test_a_claim_that_is_lost() -> None:
    assert [*judged(claim("n1", "a", (0, 1)))] == ["kept"]
    assert [*judged(claim("n1", "a", (0, 1)), blocks={B0: "b"})] == ["kept"]


def test_a_release_that_is_lost() -> None:
    history = [claim("n1", "a", (0, 1)), delete("n1", "a", (2, 3))]
    assert [*judged(*history, blocks={B0: "a"})] == ["kept"]
    assert not judged(*history)


def test_a_release_without_an_answer_may_be_either() -> None:
    history = [claim("n1", "a", (0, 1)), delete("n1", "a", (2, 3), UNKNOWN)]
    assert not judged(*history)
    assert not judged(*history, blocks={B0: "a"})


def test_gone_without_having_been_given_back() -> None:
    history = [claim("n1", "a", (0, 1)), delete("n1", "a", (2, 3), GONE)]
    assert [*judged(*history)] == ["reads"]


@pytest.mark.parametrize(
    ("shown", "span", "wrong"),
    [
        ("a", (2, 3), False),
        ("", (2, 3), True),
        ("b", (2, 3), True),
        ("", (0, 3), False),  # it began before the claim was answered
        ("", (4.5, 9), False),  # and ended after the release was asked for
        ("a", (4.5, 9), False),
        ("a", (6.5, 9), True),  # stale
        ("", (6.5, 9), False),
    ],
)
def test_reads(shown: str, span: tuple[float, float], wrong: bool) -> None:
    history = [claim("n1", "a", (0, 1)), delete("n1", "a", (5, 6))]
    found = judged(*history, op("n2", "get", span, name=B0, uid=shown))
    assert ("reads" in found) is wrong


@pytest.mark.parametrize(("shown", "wrong"), [(((B0, "a"),), False), ((), True)])
@pytest.mark.parametrize("refused", [True, False])
def test_lists_of_ones_own(shown: tuple[tuple[str, str], ...], wrong: bool, refused: bool) -> None:
    history = [claim("n1", "a", (0, 1)), op("n1", "list", (4, 5), found=shown)]
    if refused:
        history.insert(1, delete("n1", "a", (2, 3), NO))
    assert ("reads" in judged(*history, blocks={B0: "a"})) is wrong


@pytest.mark.parametrize("shown", [((B0, "a"),), ()])
def test_a_list_after_a_release_without_an_answer_shows_either(
    shown: tuple[tuple[str, str], ...],
) -> None:
    history = [claim("n1", "a", (0, 1)), delete("n1", "a", (2, 3), UNKNOWN)]
    assert not judged(*history, op("n1", "list", (4, 5), found=shown), blocks=dict(shown))


def test_a_list_with_what_is_gone() -> None:
    history = [claim("n1", "a", (0, 1)), delete("n1", "a", (2, 3))]
    assert [*judged(*history, op("n1", "list", (4, 5), found=((B0, "a"),)))] == ["reads"]


def test_of_many_owners_the_one_at_that_time_is_read() -> None:
    history = [
        claim("n1", "a", (0, 1)), delete("n1", "a", (5, 6)),
        claim("n2", "b", (7, 8)), delete("n2", "b", (12, 13)),
        claim("n3", "c", (14, 15)),
    ]  # fmt: skip
    for shown, wrong in (("b", False), ("", True)):
        found = judged(*history, op("n4", "get", (9, 10), name=B0, uid=shown), blocks={B0: "c"})
        assert ("reads" in found) is wrong


# -- full ------------------------------


def full(span: tuple[float, float]) -> Any:
    return op("n3", "create", span, FULL, pool="p")


def test_full_while_a_block_was_free() -> None:
    assert [*judged(claim("n1", "a", (0, 1)), full((2, 3)), blocks={B0: "a"})] == ["full"]


def test_full_when_it_could_have_been() -> None:
    both = [claim("n1", "a", (0, 1)), claim("n2", "b", (0, 4), B1)]
    held = {B0: "a", B1: "b"}
    assert not judged(*both, full((2, 3)), blocks=held), "the second was perhaps done by then"
    assert not judged(*both, delete("n1", "a", (1, 2.5)), full((2, 3)), blocks={B1: "b"})
    found = judged(*both, delete("n1", "a", (1, 1.5)), full((2, 3)), blocks={B1: "b"})
    assert [*found] == ["full"], "it was surely free"


def test_what_was_claimed_without_an_answer_fills_a_pool_too() -> None:
    unknown = op("n2", "create", (0, 1), UNKNOWN, pool="p")
    found_later = op("n2", "adopt", (5, 6), name=B1, uid="b", what=B1, pool="p")
    history = [claim("n1", "a", (0, 1)), unknown, full((2, 3))]
    held = {B0: "a", B1: "b"}
    assert not judged(*history, found_later, blocks=held)
    by_this = op("n2", "list", (5.1, 5.9), found=((B1, "b"),))
    assert not judged(*history, by_this, found_later, blocks=held)
    before = op("n2", "list", (3.5, 4))
    found = judged(*history, before, by_this, found_later, blocks=held)
    assert [*found] == ["full"], "later than the refusal"


def test_what_nobody_ever_knew_of_fills_a_pool_too() -> None:
    unknown = op("n2", "create", (0, 1), UNKNOWN, pool="p")
    history = [claim("n1", "a", (0, 1)), unknown, full((2, 3))]
    assert not judged(*history, blocks={B0: "a", B1: "b"})
    assert [*judged(*history, blocks={B0: "a"})] == ["full"]
    refused = op("n3", "create", (2, 3), FULL, plural="addressleases", pool="f")
    assert not judged(lease("a", "10.0.1.0", (0, 1)), refused, leases={"a": "a", "b": "b"})


def test_how_long_a_block_can_have_been_somebodys() -> None:
    """A claim without an answer may be as old as the first of them; a release that is asked for
    again, until nothing is there, is over then."""
    first, second = (op("n2", "create", (at, at + 1), UNKNOWN, pool="p") for at in (0, 4))
    late = op("n2", "adopt", (8, 9), name=B1, uid="b", what=B1, pool="p")
    history = [claim("n1", "a", (0, 1)), first, second, late]
    assert not judged(*history, full((2, 3)), blocks={B0: "a", B1: "b"})
    ending = [delete("n1", "a", (10, 11), UNKNOWN), delete("n1", "a", (12, 13), GONE)]
    assert not judged(*history, *ending, full((11, 11.5)), blocks={B1: "b"})
    assert [*judged(*history, *ending, full((14, 15)), blocks={B1: "b"})] == ["full"]
    again = [claim("n1", "c", (5, 6)), op("n1", "delete", (7, 8), name=B0, uid="c")]
    assert "full" not in judged(*history, *again, full((9, 9.5)), blocks={B0: "a", B1: "b"})


def test_a_lease_or_its_block_takes_an_address() -> None:
    block = op("n2", "create", (0, 1), name="10-0-1-1-32", uid="b", what="10-0-1-1-32", pool="f")
    refused = op("n3", "create", (2, 3), FULL, plural="addressleases", pool="f")
    held: Any = {"blocks": {"10-0-1-1-32": "b"}, "leases": {"a": "a"}}
    assert not judged(lease("a", "10.0.1.0", (0, 1)), block, refused, **held)
    assert [*judged(lease("a", "10.0.1.0", (0, 1)), refused, leases={"a": "a"})] == ["full"]


def test_a_node_without_an_address_left() -> None:
    held = [claim("n1", "a", (0, 1)), assign("n1", "w1", (1, 2)), free("n1", "w1", (3, 4))]
    none = op("n1", "create", (5, 6), FULL, plural=ADDRESSES, pool="p")
    other = assign("n1", "w2", (1, 2), "10.0.0.1")
    assert not judged(*held, other, none, blocks={B0: "a"}), "one is used, the other cools"
    assert [*judged(*held, none, blocks={B0: "a"})] == ["full"]
    late = op("n1", "create", (14.5, 15), FULL, plural=ADDRESSES, pool="p")
    assert [*judged(*held, other, late, blocks={B0: "a"})] == ["full"], "it has cooled"


# -- watches ------------------------------


def saw(kind: str, revision: int, uid: str = "") -> Seen:
    return Seen("w", "ipblocks", kind, revision, B0 if uid else "", uid)


BEGUN = (saw("BEGIN", 0), saw("END", 5))


def test_a_watch_without_gaps() -> None:
    made = claim("n1", "a", (0, 1), revision=6)
    seen = (*BEGUN, saw("ADDED", 6, "a"), saw("MODIFIED", 8, "a"), saw("BOOKMARK", 9))
    assert not judged(made, seen=seen, blocks={B0: "a"})
    again = (*seen, saw("BEGIN", 0), saw("PRESENT", 8, "a"), saw("END", 9))
    assert not judged(made, seen=again, blocks={B0: "a"})


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ((saw("ADDED", 6, "a"), saw("MODIFIED", 6, "a")), "tells 6 after 6"),
        ((saw("ADDED", 6, "a"), saw("BOOKMARK", 5)), "goes back"),
        ((saw("ADDED", 5, "a"),), "tells 5 after 5"),
        ((saw("MODIFIED", 6, "a"),), "where there is None"),
        ((saw("ADDED", 6, "b"), saw("ADDED", 7, "a")), "where b is"),
        ((saw("ADDED", 6, "a"), saw("DELETED", 7, "b"), saw("ADDED", 8, "a")), "DELETED"),
        ((saw("ADDED", 7, "a"),), "at 7, not 6"),
        ((), "ends with None"),
        ((), "at None, not 6"),
    ],
)
def test_a_watch_that_is_wrong(seen: tuple[Seen, ...], said: str) -> None:
    made = claim("n1", "a", (0, 1), revision=6)
    found = judged(made, seen=(*BEGUN, *seen), blocks={B0: "a"})["watches"]
    assert any(said in one for one in found), found


def test_a_deletion_that_a_watch_does_not_tell() -> None:
    history = [claim("n1", "a", (0, 1), revision=6), delete("n1", "a", (2, 3))]
    told = (*BEGUN, saw("ADDED", 6, "a"))
    assert not judged(*history, seen=(*told, saw("DELETED", 7, "a")))
    assert "does not tell that" in str(judged(*history, seen=told)["watches"])

"""What selectors stand for, kept up change by change: always what a fresh look finds."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.resources.selectors import parse
from api.service import members
from api.service.members import Membership, Selection, Subject, standing_of

Document = dict[str, Any]
Objects = dict[tuple[str, str], Document]

SUBJECTS = [
    Subject("app == 'web'"),
    Subject("app != 'web' && has(tier)"),
    Subject("all()"),
    Subject("nothing in {}"),
    Subject("", "http"),
    Subject("tier in {'a', 'b'}", "http"),
]
LABELS = st.dictionaries(
    st.sampled_from(["app", "tier"]), st.sampled_from(["web", "a", "b"]), max_size=2
)
ADDRESSES = st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1"]), min_size=1, max_size=2)
PORTS = st.lists(
    st.builds(
        lambda name, protocol, port: {"name": name, "protocol": protocol, "port": port},
        st.sampled_from(["", "http", "dns"]),
        st.sampled_from(["TCP", "UDP"]),
        st.sampled_from([53, 80]),
    ),
    max_size=2,
)


def document(labels: dict[str, str], spec: Document, status: Document) -> Document:
    return {"metadata": {"labels": labels}, "spec": spec, "status": status}


WORKLOADS = st.builds(
    lambda labels, mode, ports, phase, addresses: document(
        labels, {"mode": mode, "ports": ports}, {"phase": phase, "addresses": addresses}
    ),
    LABELS,
    st.sampled_from(["veth", "veth", "host", "shared"]),
    PORTS,
    st.sampled_from(["Ready", "Ready", "Pending", "Failed"]),
    ADDRESSES,
)
HOSTS = st.builds(
    lambda labels, addresses, ports: document(
        labels, {"expectedIPs": addresses, "ports": ports}, {}
    ),
    LABELS,
    ADDRESSES,
    PORTS,
)
SETS = st.builds(
    lambda labels, nets: document(labels, {"nets": nets}, {}),
    LABELS,
    st.lists(st.sampled_from(["10.0.0.0/8", "10.0.0.1/32", "fd00::/64"]), max_size=3),
)
CHANGES = st.one_of(
    st.tuples(st.just("workloads"), st.sampled_from("abc"), st.none() | WORKLOADS),
    st.tuples(st.just("hostendpoints"), st.sampled_from("ab"), st.none() | HOSTS),
    st.tuples(st.just("networksets"), st.sampled_from("ab"), st.none() | SETS),
)
OTHERS = st.tuples(
    st.sampled_from(["read", "leave", "evaluate", "evaluate", "return"]),
    st.integers(0, len(SUBJECTS) - 1),
)
STEPS = st.lists(st.one_of(CHANGES, CHANGES, OTHERS, OTHERS), min_size=10, max_size=50)


def naive(subject: Subject, objects: Objects) -> set[str]:
    """Straight from docs/policy.md, out of all objects."""
    found: set[str] = set()
    for (plural, _), held in objects.items():
        spec, status = held["spec"], held["status"]
        if not parse(subject.selector).matches(held["metadata"]["labels"]):
            continue
        if plural == "workloads":
            counts = spec["mode"] != "shared" and status["phase"] != "Failed"
            addresses = status["addresses"] if counts else []
        else:
            addresses = spec["nets" if plural == "networksets" else "expectedIPs"]
        if not subject.port:
            found |= set(addresses)
        elif plural != "networksets":
            found |= {
                f"{address},{port['protocol'].lower()}:{port['port']}"
                for address in addresses
                for port in spec["ports"]
                if port["name"] == subject.port
            }
    return found


@dataclass(eq=False)
class Follower:
    """Believes what it is told, and checks that it could be."""

    selection: Selection
    has: set[str] = field(default_factory=set)
    version: str = ""

    def put(self, line: bytes) -> None:
        for text in line.splitlines():
            told = json.loads(text)
            assert told["selector"] == self.selection.subject.selector
            assert told.get("port", "") == self.selection.subject.port
            add, remove = set(told["add"]), set(told.get("remove", ()))
            if told["type"] == "WHOLE":
                self.has = add
            else:
                assert not add & self.has, "told twice"
                assert remove <= self.has, "never had"
                self.has = (self.has | add) - remove
            self.version = told["version"]


def fresh(objects: Objects) -> Membership:
    made = Membership()
    for (plural, name), held in objects.items():
        made.put((plural, name), standing_of(plural, held), 1)
    return made


def evaluated(membership: Membership, subject: Subject) -> Selection:
    found = membership.hold(subject)
    for _ in membership.evaluate(found):
        pass
    return found


@settings(max_examples=150, deadline=None)
@given(st.sets(st.integers(0, len(SUBJECTS) - 1)), STEPS)
def test_whatever_changes_what_is_known_is_what_a_fresh_look_finds(
    first: set[int], steps: list[Any]
) -> None:
    """While selections begin and end, are evaluated in parts, and readers leave and come back."""
    membership, objects = Membership(), Objects()
    members.GROUPS_PART, part = 1, members.GROUPS_PART
    reading: dict[int, Follower] = {}
    away: dict[int, Follower] = {}
    begun: dict[int, Any] = {}
    steps = [step for which in first for step in (("read", which), ("evaluate", which))] + steps
    for revision, step in enumerate(steps, 1):
        if len(step) == 3:
            plural, name, held = step
            if held is None:
                objects.pop((plural, name), None)
            else:
                objects[plural, name] = held
            standing = None if held is None else standing_of(plural, held)
            membership.put((plural, name), standing, revision)
        else:
            verb, which = step
            if verb == "leave" and which in reading:
                one = away[which] = reading.pop(which)
                one.selection.readers.discard(one)
                membership.let_go(one.selection)
            elif verb in ("read", "return") and which not in reading and which not in begun:
                selection = membership.hold(SUBJECTS[which])
                known = away.pop(which, Follower(selection)) if verb == "return" else None
                one = known or Follower(selection)
                one.selection = selection
                begun[which] = (one, membership.evaluate(selection))
            for number, (one, parts) in list(begun.items()) if verb == "evaluate" else ():
                if len(list(islice(parts, 2 * which + 1))) < 2 * which + 1:
                    assert one.selection.ready
                    one.put(one.selection.since(one.version))
                    one.selection.readers.add(one)
                    reading[number] = one
                    del begun[number]
        for number, one in reading.items():
            wanted = naive(SUBJECTS[number], objects)
            assert one.selection.entries == wanted
            assert one.has == wanted
            assert one.version == one.selection.version
            assert one.version == evaluated(fresh(objects), SUBJECTS[number]).version
    members.GROUPS_PART = part


def workload(address: str, **labels: str) -> Document:
    spec = {"mode": "veth", "ports": []}
    return document(labels, spec, {"phase": "Ready", "addresses": [address]})


def put(membership: Membership, name: str, held: Document | None, revision: int = 1) -> None:
    standing = None if held is None else standing_of("workloads", held)
    membership.put(("workloads", name), standing, revision)


def test_a_change_is_matched_once_with_each_selection_whoever_reads_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    membership = Membership()
    asked: list[str] = []
    for number in range(20):
        selection = evaluated(membership, Subject(f"app == 'a{number}'"))
        matcher = selection.matcher

        def counted(labels: Any, matcher: Any = matcher, number: int = number) -> bool:
            asked.append(f"a{number}")
            return bool(matcher(labels))

        selection.matcher = counted
        for _ in range(50):
            follower = Follower(selection)
            selection.readers.add(follower)
            follower.put(selection.since(""))
    put(membership, "w", workload("10.0.0.1", app="a7"))
    assert sorted(asked) == sorted(f"a{number}" for number in range(20))
    asked.clear()
    put(membership, "x", workload("10.0.0.2", app="a7"))  # labels that are known already
    put(membership, "x", workload("10.0.0.3", app="a7"))
    assert asked == []


def test_a_line_is_made_once_for_all_who_read_it() -> None:
    membership = Membership()
    selection = evaluated(membership, Subject("app == 'web'"))
    lines: list[bytes] = []

    class Keeps:
        def put(self, line: bytes) -> None:
            lines.append(line)

    selection.readers |= {Keeps() for _ in range(100)}
    put(membership, "w", workload("10.0.0.1", app="web"))
    assert len(lines) == 100
    assert all(line is lines[0] for line in lines)
    assert selection.whole() is selection.whole()


def test_who_comes_back_is_told_what_changed_and_all_only_if_that_is_forgotten() -> None:
    membership = Membership()
    for number in range(500):
        put(membership, f"w{number}", workload(f"10.0.{number // 250}.{number % 250}", app="web"))
    selection = evaluated(membership, Subject("app == 'web'"))
    known = selection.version
    assert selection.since(known) == b""
    assert json.loads(selection.since(""))["type"] == "WHOLE"
    put(membership, "w0", None)
    put(membership, "new", workload("10.1.0.1", app="web"))
    lines = [json.loads(line) for line in selection.since(known).splitlines()]
    twice = selection.version
    put(membership, "new", None)
    put(membership, "new", workload("10.1.0.1", app="web"))
    assert (selection.version, selection.since(twice)) == (twice, b"")
    put(membership, "last", workload("10.1.0.2", app="web"))
    assert len(selection.since(twice).splitlines()) == 1
    assert [(one["type"], one["add"], one["remove"]) for one in lines] == [
        ("DELTA", [], ["10.0.0.0"]), ("DELTA", ["10.1.0.1"], []),
    ]  # fmt: skip
    for number in range(members.RECENT_MOST):
        put(membership, f"more{number}", workload(f"10.2.0.{number}", app="web"))
    assert json.loads(selection.since(known))["type"] == "WHOLE"
    assert json.loads(selection.since("another"))["type"] == "WHOLE"


def test_changes_that_are_longer_than_the_whole_are_told_as_the_whole() -> None:
    membership = Membership()
    selection = evaluated(membership, Subject("all()"))
    versions = [selection.version]
    for number in range(4):
        nets = [f"10.{number}.{third}.0/24" for third in range(0 if number == 3 else 200)]
        held = document({}, {"nets": ["192.0.2.0/24", *nets]}, {})
        membership.put(("networksets", "n"), standing_of("networksets", held), number + 1)
        versions.append(selection.version)
    kinds = [
        [json.loads(line)["type"] for line in selection.since(v).splitlines()] for v in versions
    ]
    assert kinds == [["WHOLE"], ["WHOLE"], ["WHOLE"], ["DELTA"], []]
    assert selection.entries == {"192.0.2.0/24"}


def test_large_changes_are_not_remembered() -> None:
    membership = Membership()
    selection = evaluated(membership, Subject("all()"))
    versions = [selection.version]
    for number in range(20):
        nets = [f"10.{number}.{third}.0/24" for third in range(250)]
        held = document({}, {"nets": nets}, {})
        membership.put(("networksets", "n"), standing_of("networksets", held), number)
        versions.append(selection.version)
    assert sum(len(line) for _, line in selection._recent) <= members.RECENT_BYTES
    assert json.loads(selection.since(versions[-2]))["type"] == "WHOLE", "it is shorter"
    put(membership, "w", workload("10.200.0.1"))
    assert json.loads(selection.since(versions[-1]))["type"] == "DELTA"


def test_an_address_of_two_is_there_until_both_are_gone() -> None:
    membership = Membership()
    selection = evaluated(membership, Subject("app == 'web'"))
    for name in ("a", "b"):
        put(membership, name, workload("10.0.0.1", app="web"))
    put(membership, "a", None)
    assert selection.entries == {"10.0.0.1"}
    put(membership, "b", workload("10.0.0.1", app="db"))
    assert selection.entries == frozenset()
    assert selection.groups == set(), "nobody has such labels any more"


def test_selections_that_nobody_reads_are_kept_for_a_while_and_then_left_everywhere() -> None:
    membership = Membership()
    put(membership, "w", workload("10.0.0.1", app="web"))
    first = evaluated(membership, Subject("app == 'web'"))
    second = evaluated(membership, Subject("has(app)"))
    for one in (first, second):
        membership.let_go(one)
        assert membership.hold(one.subject) is one
    membership.let_go(first)
    for number in range(members.IDLE_MOST):
        membership.let_go(evaluated(membership, Subject(f"app == 'web' || x == '{number}'")))
    assert first.gone
    assert membership.hold(second.subject) is second, "it is used"
    (group,) = membership._groups.values()
    assert first not in group.selections
    assert len(group.selections) == members.IDLE_MOST + 1 == len(membership._selections)
    again = membership.hold(first.subject)
    assert again is not first
    assert not again.ready


def test_of_what_a_later_release_wrote_what_can_be_read_counts() -> None:
    spec = {"ports": [7, {"name": "http", "port": 80}, {"name": 7}], "mode": "new"}
    held = document({"app": "web"}, spec, {"addresses": ["10.0.0.1", {"address": "10.0.0.2"}]})
    standing = standing_of("workloads", held)
    assert standing is not None
    assert standing.entries == ("10.0.0.1",)
    assert standing.ports == (("http", "10.0.0.1,tcp:80"),)
    assert standing_of("workloads", {"spec": {"addresses": ["10.0.0.1"]}}) is None, "asked for"

"""The pure parts: which releases work together, how one reads the other, what it leaves alone."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from api.resources import Condition, IPPool, Node, ObjectMeta, Workload
from api.resources.node import NodeStatus
from api.resources.reading import Unreadable, keeping, read
from api.resources.registry import KINDS
from api.resources.versions import VERSION, against
from api.service.patches import MERGE, STRATEGIC, patched
from bgp import wire
from bgp.seam import Peer
from routed.agent import skew
from routed.agent.attachment import Attachment
from routed.agent.intent import parse
from routed.agent.reporting import Delete, Local, status_change, workload_writes

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("ours", "theirs", "upgrade"),
    [
        ("0.1.0", "0.1.0", None),
        ("0.1.0", "0.1.9", None),
        ("0.1.0", "0.2.0", None),
        ("0.2.5", "0.1.0", None),
        ("0.2.0", "", None),  # 0.1
        ("0.3.0", "", "them"),
        ("0.1.0", "0.3.0", "us"),
        ("0.12.0", "0.10.0", "them"),
        ("0.9.0", "1.0.0", "us"),
        ("1.0.0", "0.9.0", "them"),
        ("0.1.0", "0.2.0-rc1", None),
        ("0.1.0", "0.2.0+build.7", None),
    ],
)
def test_which_releases_work_together(ours: str, theirs: str, upgrade: str | None) -> None:
    said = against(ours, theirs, "us", "them")
    assert said.partition("; upgrade ")[2] == (upgrade or "")
    assert bool(said) is (upgrade is not None)


@pytest.mark.parametrize("version", ["1", "0.1", "a.b.c", "0.1.0 ", "0.1.0\n", "-1.0.0", "0.1.x"])
def test_what_is_no_version_is_said(version: str) -> None:
    for said in (against(VERSION, version, "us", "them"), skew.of_service(version)):
        assert repr(version) in said


def test_the_package_is_of_that_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == VERSION


def test_the_condition_names_everything_that_is_against_it() -> None:
    assert skew.condition("", "", {}).status == "False"
    unread = {("ippools", f"p{n}"): "why" for n in range(5)}
    said = skew.condition("", "old speaker", unread)
    assert (said.status, said.reason) == ("True", "Speaker")
    assert said.message == (
        "old speaker; ippools p0: why; ippools p1: why; ippools p2: why; and 2 more"
    )


NEWER: dict[str, Any] = {
    "apiVersion": "routed.dev/v1",
    "kind": "Workload",
    "metadata": {"name": "web", "uid": "u", "new": 1},
    "spec": {"node": "h1", "ports": [{"port": 1, "new": 1}], "new": {"deep": 1}},
    "status": {"phase": "Migrating", "mac": "x", "conditions": [{"type": "A", "status": "Maybe"}]},
    "new": True,
}


def test_what_is_not_known_is_left_out_and_a_report_does_not_hide_the_object() -> None:
    found = read(Workload, NEWER)
    assert (found.spec.node, found.spec.ports[0].port, found.status.mac) == ("h1", 1, "x")
    assert found.status.conditions == []
    assert "new" not in str(found.wire())


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"spec": {"node": "h1", "mode": "quantum"}}, "spec.mode"),
        ({"kind": "Warkload"}, "kind"),
        ({"spec": {"node": 5}}, "spec.node"),
        ({"metadata": {"name": "web", "labels": {"a": 1}}}, "metadata.labels"),
    ],
)
def test_what_decides_is_not_guessed(change: dict[str, Any], field: str) -> None:
    with pytest.raises(Unreadable) as caught:
        read(Workload, {**NEWER, **change})
    assert any(cause.field.startswith(field) for cause in caught.value.causes)


def test_what_only_a_newer_one_knows_stays_through_a_change() -> None:
    before = {"a": {"x": 1, "new": 2}, "list": [{"p": 1, "new": 1}], "same": 1, "new": {"z": None}}
    known = {"a": {"x": 1}, "list": [{"p": 1}], "same": 1}
    assert keeping(before, known, known) == before
    after = {"a": {"x": 5, "y": 6}, "list": [{"p": 1}], "same": 1}
    assert keeping(before, known, after) == {
        **before,
        "a": {"x": 5, "y": 6, "new": 2},
    }
    assert keeping(before, known, {**known, "list": []})["list"] == []
    assert "same" not in keeping(before, known, {"a": {"x": 1}, "list": [{"p": 1}]})


def test_conditions_are_patched_by_their_type() -> None:
    held = {"status": {"conditions": [{"type": "A", "status": "True", "new": 1}, {"type": "B"}]}}
    change = {"status": {"conditions": [{"type": "A", "status": "False"}, {"type": "C"}]}}
    assert patched(STRATEGIC, held, change)["status"]["conditions"] == [
        {"type": "A", "status": "False", "new": 1},
        {"type": "B"},
        {"type": "C"},
    ]
    assert patched(MERGE, held, change)["status"]["conditions"] == change["status"]["conditions"]
    for odd in ([1], [{}], [{"type": []}], "x", [{"type": "A"}, {"type": "A"}]):
        made = patched(STRATEGIC, held, {"status": {"conditions": odd}})
        assert made["status"]["conditions"] == odd


def condition(name: str, status: str = "True") -> Condition:
    return Condition(type=name, status=status)


def test_a_report_is_of_the_fields_that_differ() -> None:
    ours = NodeStatus(conditions=[condition("Ready")], versions={"routed": "1"})
    shown = read(
        Node,
        {
            "metadata": {"name": "h1"},
            "status": {
                "conditions": [{"type": "Future", "status": "True"}, condition("Ready").wire()],
                "versions": {"routed": "1", "kernel": "6"},
            },
        },
    ).status
    assert status_change(shown, ours) == {}
    other = ours.model_copy(update={"versions": {"routed": "2"}})
    assert status_change(shown, other) == {"versions": {"routed": "2"}}
    sick = ours.model_copy(update={"conditions": [condition("Ready", "False")]})
    assert [one["type"] for one in status_change(shown, sick)["conditions"]] == ["Ready"]
    older = read(Node, {"metadata": {"name": "h1"}, "status": {"conditions": []}}).status
    assert set(status_change(older, ours)) == {"conditions"}  # it knows no versions


def test_a_field_that_an_older_service_does_not_keep_is_no_difference() -> None:
    """Else the report would be deleted and made again without end."""
    record = Attachment.model_validate(
        {"id": "web.h1", "name": "web", "node": "h1", "origin": "Node", "addresses": []}
        | {"netns": "/run/netns/web", "lease": "db", "ports": [{"port": 80, "hostPort": 8080}]}
    )
    local = Local(record, ready=True)
    held = Workload(
        metadata=ObjectMeta(name="web.h1"), spec=record.spec(), status=record.status(ready=True)
    ).wire()
    assert workload_writes("web.h1", local, read(Workload, held)) == []
    del held["spec"]["lease"], held["status"]["mac"], held["spec"]["ports"][0]["hostPort"]
    assert workload_writes("web.h1", local, read(Workload, held)) == []
    for change in ({"lease": "other"}, {"ports": [{"port": 80, "hostPort": 81}]}, {"ports": []}):
        other = {**held, "spec": {**held["spec"], **change}}
        (gone,) = workload_writes("web.h1", local, read(Workload, other))
        assert isinstance(gone, Delete), change


def test_reports_have_no_field_that_may_be_missing() -> None:
    """A field that a service does not show is one that it does not know (`reporting`)."""
    for plural in ("workloads", "nodes", "ipblocks"):
        fields = dict(KINDS[plural].model.model_fields["status"].annotation.model_fields)  # type: ignore[union-attr]
        if plural == "workloads":
            fields |= KINDS[plural].model.model_fields["spec"].annotation.model_fields  # type: ignore[union-attr]
        for name, field in fields.items():
            assert field.get_default(call_default_factory=True) is not None, name


def test_a_newer_copy_of_intent_is_read(tmp_path: Path) -> None:
    pool = {"metadata": {"name": "p", "new": 1}, "spec": {"cidr": "10.1.0.0/16", "new": 1}}
    pool |= {"apiVersion": "routed.dev/v1", "kind": "IPPool"}
    text = '{"nodeName":"h1","pools":{"p":%s},"written":"0.2.0"}'
    intent, _ = parse((text % str(pool).replace("'", '"')).encode())
    assert intent.pools["p"].spec == read(IPPool, pool).spec


def test_a_newer_message_is_passed_over_and_a_newer_field_left_out() -> None:
    assert wire.parse_op(b'{"op":"dance","steps":3}') == wire.Unknown("dance")
    assert wire.parse_event(b'{"event":"weather"}') == wire.Unknown("weather")
    line = b'{"op":"sync","token":7,"urgency":"high"}'
    assert wire.parse_op(line) == wire.Sync(7)
    stored = {"name": "t", "address": "192.0.2.1", "remote_as": 1, "local_as": 2}
    stored |= {"router_id": "1.1.1.1", "bfd": {"min": 3}}
    assert wire.build(Peer, stored).hold_time == 9
    assert wire.op(wire.Begin(1)) == b'{"op":"begin","revision":1}\n'

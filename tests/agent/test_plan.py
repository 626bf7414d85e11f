"""The plan and what follows from it: pure, so every rule is a line."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from api.resources import BGPPeer, IPBlock, IPPool, Node, Workload
from api.resources.errors import AlreadyExists, BadRequest, Conflict, Invalid
from api.resources.workload import Origin, WorkloadStatus
from bgp.seam import Path
from routed.agent.attachment import Attachment, Step
from routed.agent.imports import Imports, import_routes
from routed.agent.intent import Encoder, Intent, decides, load, only_more_blocks
from routed.agent.plan import Facts, announce, peers_of, plan, router_id
from routed.agent.records import Records, existing, write_atomic
from routed.agent.reporting import Create, Delete, Local, Patch, workload_writes
from routed.agent.request import parse_attach
from routed.state import Report


def made(cls: Any, name: str, spec: dict[str, Any], **more: Any) -> Any:
    return cls.model_validate({"kind": cls.KIND, "metadata": {"name": name, **more}, "spec": spec})


def intent(**changes: Any) -> Intent:
    parts: dict[str, Any] = {
        "node_name": "h1",
        "node": made(Node, "h1", {"asNumber": 4200000001, "addresses": ["192.0.2.11"]}),
        "pools": {"main": made(IPPool, "main", {"cidr": "10.65.0.0/16"})},
        "blocks": {
            "10-65-0-0-26": made(
                IPBlock, "10-65-0-0-26", {"cidr": "10.65.0.0/26", "pool": "main", "node": "h1"}
            )
        },
        "peers": {
            "tor1": made(BGPPeer, "tor1", {"peerIP": "192.0.2.1", "asNumber": 65001}),
            "tor2": made(
                BGPPeer, "tor2", {"peerIP": "192.0.2.2", "asNumber": 65002, "importDefault": True}
            ),
        },
    }
    return Intent(**{**parts, **changes})


def record(name: str = "web", address: str = "10.65.0.1", **changes: Any) -> Attachment:
    fields: dict[str, Any] = {
        "id": f"{name}.h1",
        "name": name,
        "node": "h1",
        "origin": Origin.NODE,
        "netns": f"/run/netns/{name}",
        "netns_id": (4, hash(name) & 0xFFFF),
        "addresses": [ip_address(address)],
        "step": Step.ATTACHED,
    }
    return Attachment(**{**fields, **changes})


def records(*held: Attachment) -> dict[str, Attachment]:
    return {one.id: one for one in held}


def path(prefix: str, hop: str = "192.0.2.1", peer: str = "tor1", length: int = 2) -> Path:
    return Path(peer, ip_network(prefix), (ip_address(hop),), tuple(range(65001, 65001 + length)))


def test_nothing_is_swept_before_intent_is_loaded() -> None:
    without = plan(Facts(None, records(record())))
    assert set(without.endpoints) == {"web.h1"}
    assert not without.sweep
    assert not without.sweep_learned
    assert plan(Facts(intent(), {})).sweep
    assert not plan(Facts(intent(), {})).sweep_learned
    assert plan(Facts(intent(), {}, received_whole=True)).sweep_learned


def test_a_detach_that_has_begun_is_not_desired_and_not_announced() -> None:
    going = record(step=Step.DETACHING)
    facts = Facts(intent(), records(going))
    assert not plan(facts).endpoints
    assert not announce(facts, Report(ready={"web.h1": tuple(going.addresses)}))


def test_only_what_was_read_back_inside_our_own_blocks_is_announced() -> None:
    inside, outside = record(), record("db", "10.65.7.1")
    facts = Facts(intent(), records(inside, outside))
    assert not announce(facts, Report())
    ready = {one.id: tuple(one.addresses) for one in (inside, outside)}
    found = announce(facts, Report(ready=ready))
    assert list(found) == [ip_network("10.65.0.1/32")]
    assert found[ip_network("10.65.0.1/32")].link == inside.host_interface
    assert not announce(Facts(None, records(inside)), Report(ready=ready))


def test_blocks_are_announced_as_the_pool_says_once_their_blackhole_is_there() -> None:
    spec = {"cidr": "10.65.0.0/16", "announce": "Both"}
    facts = Facts(intent(pools={"main": made(IPPool, "main", spec)}), {})
    block = ip_network("10.65.0.0/26")
    assert not announce(facts, Report())
    assert list(announce(facts, Report(routed=frozenset([block])))) == [block]
    giving = Facts(facts.intent, {}, releasing=frozenset(["10-65-0-0-26"]))
    assert not announce(giving, Report(routed=frozenset([block])))
    assert not plan(giving).blackholes


@pytest.mark.parametrize(
    ("prefix", "hop", "peer", "let_in"),
    [
        ("10.65.1.7/32", "192.0.2.1", "tor1", True),
        ("10.65.1.0/26", "192.0.2.1", "tor1", True),
        ("10.65.1.0/27", "192.0.2.1", "tor1", False),  # neither a host nor a block
        ("10.65.0.0/16", "192.0.2.1", "tor1", False),
        ("10.65.0.7/32", "192.0.2.1", "tor1", False),  # inside our own block
        ("10.65.0.0/26", "192.0.2.1", "tor1", False),
        ("198.51.100.1/32", "192.0.2.1", "tor1", False),  # in no pool
        ("0.0.0.0/0", "192.0.2.1", "tor1", False),  # not asked for
        ("0.0.0.0/0", "192.0.2.2", "tor2", True),
        ("0.0.0.0/1", "192.0.2.2", "tor2", False),
        ("10.65.1.7/32", "10.65.1.7", "tor1", False),  # through itself
        ("10.65.1.7/32", "192.0.2.11", "tor1", False),  # through us
        ("10.65.1.7/32", "127.0.0.1", "tor1", False),
    ],
)
def test_the_import_rule(prefix: str, hop: str, peer: str, let_in: bool) -> None:
    assert bool(import_routes(intent(), [path(prefix, hop, peer)])) == let_in


def test_the_shortest_paths_become_ecmp() -> None:
    found = import_routes(
        intent(),
        [
            path("10.65.1.7/32", "192.0.2.2", "tor2"),
            path("10.65.1.7/32", "192.0.2.1", "tor1"),
            path("10.65.1.7/32", "192.0.2.3", "tor3", length=3),
        ],
    )
    (route,) = found.values()
    assert [str(hop.gateway) for hop in route.next_hops] == ["192.0.2.1", "192.0.2.2"]


def test_peers_are_those_that_select_the_node_once_it_has_an_asn() -> None:
    both = peers_of(intent())
    assert both["tor1"].local_as == 4200000001
    assert both["tor1"].router_id == "192.0.2.11"
    gpu = made(BGPPeer, "g", {"peerIP": "192.0.2.3", "asNumber": 1, "nodeSelector": "has(gpu)"})
    assert not peers_of(intent(peers={"g": gpu}))
    named = made(BGPPeer, "n", {"peerIP": "192.0.2.3", "asNumber": 1, "node": "h2"})
    assert not peers_of(intent(peers={"n": named}))
    assert not peers_of(intent(node=made(Node, "h1", {})))
    six = intent(node=made(Node, "h1", {"addresses": ["fd00::1"]}))
    assert router_id(six) == router_id(six) != router_id(intent(node=None, node_name="h2"))


def test_reports_say_what_is_and_take_back_what_is_not() -> None:
    held = record()
    (create,) = workload_writes("web.h1", Local(held), None)
    assert isinstance(create, Create)
    assert create.object.metadata.name == "web.h1"
    gone = made(Workload, "old.h1", {"node": "h1", "origin": "Node"}, uid="u1")
    known = Workload(
        metadata=gone.metadata.model_copy(update={"name": "web.h1"}),
        kind="Workload",
        spec=held.spec(),
        status=held.status(ready=True),
    )
    assert workload_writes("old.h1", Local(None), gone) == [Delete("workloads", "old.h1", "u1")]
    going = Local(record(step=Step.DETACHING))
    assert workload_writes("web.h1", going, known) == [Delete("workloads", "web.h1", "u1")]
    assert workload_writes("web.h1", going, None) == []
    assert workload_writes("web.h1", Local(held, ready=True), known) == []
    changed = workload_writes("web.h1", Local(held, ready=False), known)
    assert [type(write) for write in changed] == [Patch]


def test_a_declared_workload_is_never_deleted_by_us() -> None:
    declared = made(Workload, "api1", {"node": "h1", "netns": "x"})
    assert workload_writes("api1", Local(None), declared) == []
    failed = Local(None, failure=WorkloadStatus(host_interface="x"))
    assert [type(w) for w in workload_writes("api1", failed, declared)] == [Patch]


def test_intent_survives_on_disk_and_another_nodes_does_not_count(tmp_path: Any) -> None:
    file = tmp_path / "intent.json"
    assert load(file, "h1") is None
    declared = made(Workload, "api1", {"node": "h1", "netns": "x"})
    report = made(Workload, "web.h1", {"node": "h1", "origin": "Node"})
    whole, encoder = intent(declared={"api1": declared}), Encoder()
    write_atomic(file, encoder.encode(whole, {"web.h1": report}), durable=True)
    assert file.stat().st_mode & 0o777 == 0o600
    assert load(file, "h1") == (whole, {"web.h1": report})
    assert load(file, "h2") is None
    without = intent(blocks={})
    write_atomic(file, encoder.encode(without, {}), durable=True)
    assert load(file, "h1") == (without, {})
    file.write_text("{torn")
    assert load(file, "h1") is None
    assert (tmp_path / "intent.json.bad").exists()


def test_only_what_decides_is_a_new_intent() -> None:
    report = made(Workload, "web.h1", {"node": "h1", "origin": "Node"})
    assert not decides(None, report)
    assert not decides(report, None)
    block = intent().blocks["10-65-0-0-26"]
    counted = block.model_copy(update={"status": block.status.model_copy(update={"assigned": 3})})
    assert not decides(block, counted)
    assert decides(block, None)
    other = block.model_copy(update={"spec": block.spec.model_copy(update={"node": "h2"})})
    assert decides(block, other)
    labelled = made(Node, "h1", {}, labels={"rack": "r1"})
    assert decides(made(Node, "h1", {}), labelled)


def test_a_block_more_can_wait_and_a_block_less_cannot() -> None:
    one = intent()
    more = made(IPBlock, "10-65-4-0-26", {"cidr": "10.65.4.0/26", "pool": "main", "node": "h1"})
    two = intent(blocks={**one.blocks, "10-65-4-0-26": more})
    assert only_more_blocks(one, two)
    assert not only_more_blocks(two, one)
    assert not only_more_blocks(one, intent(blocks={"10-65-4-0-26": more}))
    assert not only_more_blocks(one, intent(blocks=two.blocks, peers={}))


def test_only_touched_prefixes_are_decided_again_and_all_when_the_rule_changes() -> None:
    imports, here = Imports(), intent()
    one, two = path("10.65.1.7/32"), path("10.65.2.7/32")
    paths = {p.prefix: {p.peer: p} for p in (one, two)}
    assert set(imports.update(here, paths, None)) == {one.prefix, two.prefix}
    del paths[one.prefix]
    assert set(imports.update(here, paths, set())) == {one.prefix, two.prefix}
    assert set(imports.update(here, paths, {one.prefix})) == {two.prefix}
    added = path("10.65.3.7/32")
    paths[added.prefix] = {"tor1": added}
    hops = imports.update(here, paths, {added.prefix})[added.prefix].next_hops
    assert hops is imports.learned[two.prefix].next_hops, "one tuple for one set of next hops"
    owner = made(IPBlock, "b", {"cidr": "10.65.2.0/26", "pool": "main", "node": "h1"})
    assert set(imports.update(intent(blocks={"b": owner}), paths, set())) == {added.prefix}
    assert imports.update(None, paths, set()) == {}


def test_records_find_what_is_attached_already(tmp_path: Any) -> None:
    kept = Records(tmp_path / "attachments")
    kept.load()
    held = record(container_id="c1")
    kept.put(held)
    again = Records(tmp_path / "attachments")
    again.load()
    assert again.all() == {"web.h1": held}
    assert existing(again, record("other", container_id="c1")) == held
    with pytest.raises(AlreadyExists, match=r"web\.h1"):
        existing(again, record(container_id="c2", netns_id=(4, 1)))
    with pytest.raises(Conflict, match="eth0"):
        existing(again, record("x", netns_id=held.netns_id))
    assert existing(again, record("y")) is None
    (tmp_path / "attachments" / "bad.json").write_text("{")
    again.load()
    assert [path.name for path in again.unreadable] == ["bad.json"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"netns":"x"}', "name"),
        ('{"name":"Web","netns":"x"}', "name"),
        ('{"name":"web"}', "netns"),
        ('{"name":"web","netns":"x","handOver":true}', "netns"),
        ('{"name":"web","netns":"x","ifName":"abcdefghijklmnop"}', "ifName"),
        ('{"name":"web","netns":"x","addresses":["10.65.0.1/32"]}', "addresses[0]"),
        ('{"name":"web","netns":"x","adresses":[]}', "adresses"),
        ('{"name":"web","netns":3}', "netns"),
    ],
)
def test_a_bad_attach_request_names_the_field(body: str, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_attach(body.encode())
    assert [cause.field for cause in caught.value.causes] == [field]


def test_three_mistakes_are_reported_at_once() -> None:
    with pytest.raises(Invalid) as caught:
        parse_attach(b'{"name":"A","netns":"x","ifName":"a/b","mode":"bridge"}')
    assert {cause.field for cause in caught.value.causes} == {"name", "ifName", "mode"}
    with pytest.raises(BadRequest):
        parse_attach(b"[]")
    with pytest.raises(BadRequest):
        parse_attach(b"{")

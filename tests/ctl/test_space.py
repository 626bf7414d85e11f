"""`routectl ipam` and the deletion of nodes, against a real service process."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest
from support.ctl import Ctl, ok

from api.client import Client
from api.resources import IPBlock, IPPool, Node
from api.resources.ippool import FORCE_RELEASE
from api.resources.meta import Resource
from routed.ctl import space

pytestmark = pytest.mark.timeout(300)  # many commands, one after the other


def test_addresses_are_shown_checked_and_taken_back(ctl: Ctl) -> None:
    node = {"kind": "Node", "apiVersion": "routed.dev/v1", "metadata": {"name": "off"}}
    pool = {"kind": "IPPool", "apiVersion": "routed.dev/v1", "metadata": {"name": "tiny"},
            "spec": {"cidr": "10.99.0.0/26", "blockSize": 28}}  # fmt: skip
    block = {"kind": "IPBlock", "apiVersion": "routed.dev/v1", "metadata": {"name": "claim"},
             "spec": {"node": "off", "pool": "tiny"}}  # fmt: skip
    for one in (node, pool, block):
        ok(ctl("create", "-f", "-", stdin=json.dumps(one)))
    assert "└─ 10.99.0.0/28" in ok(ctl("ipam", "show"))
    assert "1 of 4 blocks owned" in ok(ctl("ipam", "show", "--map"))
    assert "░···" in ok(ctl("ipam", "show", "--map"))
    found = ctl("ipam", "check")
    assert (found.returncode, found.stdout) == (
        1,
        "nodes/off: never reported: what it has is not known\n",
    )
    refused = ctl("delete", "node", "off")
    assert refused.returncode == 1
    assert "owns 1 block(s) (10-99-0-0-28)" in refused.stderr
    for words in (
        ["delete", "node", "off", "--force"],
        ["delete", "node", "off", "--force", "--statement", " "],
        ["ipam", "release", "10.99.0.1", "--statement", "it is off"],
        ["delete", "pool", "tiny", "--force", "--statement", "it is off"],
    ):
        wrong = ctl(*words)
        assert wrong.returncode == 2, words
        assert "--force" in wrong.stderr
    assert "node off is asked" in ok(ctl("ipam", "release", "10.99.0.1"))
    assert "wanted back" in ok(ctl("ipam", "show"))
    missing = ctl("ipam", "release", "10.99.0.60")
    assert missing.returncode == 1
    assert "cannot find a block with 10.99.0.60" in missing.stderr
    assert "taken from node off" in ok(
        ctl("ipam", "release", "10.99.0.0/28", "--force", "--statement", "the board is dead")
    )
    ok(ctl("create", "-f", "-", stdin=json.dumps(block)))
    assert "statement: the board is dead" in ok(ctl("get", "ipblock", "10-99-0-0-28", "-o", "yaml"))
    report = {"kind": "Workload", "apiVersion": "routed.dev/v1", "metadata": {"name": "w.off"},
              "spec": {"node": "off", "origin": "Node"}}  # fmt: skip
    ok(ctl("create", "-f", "-", stdin=json.dumps(report)))
    ok(ctl("delete", "node", "off", "--force", "--statement", "the board is dead"))
    assert ctl("get", "node", "off").returncode == 1
    assert ctl("get", "workload", "w.off").returncode == 1
    ok(ctl("delete", "pool", "tiny"))


def test_a_statement_that_was_left_behind_is_taken_back(ctl: Ctl, admin: Path) -> None:
    """By an older command that was interrupted, or with kubectl."""
    asyncio.run(_stated(admin, ctl))


async def _stated(admin: Path, ctl: Ctl) -> None:
    client = Client.from_kubeconfig(admin)
    path, merge = "/ipblocks/10-97-0-0-28", {"content-type": "application/merge-patch+json"}
    left = {"metadata": {"annotations": {FORCE_RELEASE: "it is off"}}}

    async def stated() -> IPBlock:
        await client.raw("PATCH", path, content=json.dumps(left), headers=merge)
        return await client.get(IPBlock, "10-97-0-0-28")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return ctl("ipam", *words)

    try:
        pool = {"metadata": {"name": "left"}, "spec": {"cidr": "10.97.0.0/26", "blockSize": 28}}
        await client.create(IPPool.model_validate(pool))
        await client.create(Node.model_validate({"metadata": {"name": "busy"}}))
        claim = {"metadata": {"name": "claim"}, "spec": {"node": "busy", "pool": "left"}}
        await client.create(IPBlock.model_validate(claim))
        before = await stated()
        found = await asyncio.to_thread(run, "check", "-o", "json")
        assert found.returncode == 1
        said = [one for one in json.loads(found.stdout)["findings"] if one["kind"] == "ipblocks"]
        assert [(one["name"], one["garbage"]) for one in said] == [("10-97-0-0-28", True)]
        assert "has a statement that busy is off" in said[0]["message"]
        found = await asyncio.to_thread(run, "check", "--fix")
        assert "a deletion would; taken away" in found.stdout
        after = await client.get(IPBlock, "10-97-0-0-28")
        assert FORCE_RELEASE not in after.metadata.annotations
        assert after.metadata.uid == before.metadata.uid, "the block itself is not garbage"
        await stated()
        assert "is asked for it" in ok(await asyncio.to_thread(run, "release", "10.97.0.1"))
        asked = await client.get(IPBlock, "10-97-0-0-28")
        assert asked.metadata.deletion_timestamp, "asked for, not taken"
        await space.delete_node(client, "busy", space.Force("it is off, they said"))
        await client.delete(IPPool, "left")
    finally:
        await client.close()


def test_it_is_told_apart_what_differs_and_what_could_not_be_looked_at(ctl: Ctl) -> None:
    nowhere = ctl("--server", "https://127.0.0.1:9", "ipam", "check")
    assert nowhere.returncode == 2
    assert "cannot reach the service" in nowhere.stderr
    no_agent = ctl("ipam", "check", "--agent", "/nonexistent.sock")
    assert no_agent.returncode == 2
    assert "cannot reach the agent" in no_agent.stderr
    assert ctl("ipam", "check", "-o", "yaml").returncode == 2


def test_a_forced_deletion_outlasts_a_node_that_claims_again(admin: Path) -> None:
    asyncio.run(_deleted_while_it_claims(admin))


async def _deleted_while_it_claims(admin: Path) -> None:
    """The operator was wrong, its agent runs: it claims until it hears that it is cordoned."""

    class Claimed(Client):
        """Somebody claims a block for the node before its first deletion arrives."""

        claims = 1

        async def delete(
            self, model: type[Resource], name: str, *, uid: str = "", statement: str = ""
        ) -> None:
            if model is Node and self.claims:
                self.claims -= 1
                assert (await self.get(Node, name)).spec.unschedulable
                claim = {"metadata": {"name": "claim"}, "spec": {"node": name, "pool": "again"}}
                await self.create(IPBlock.model_validate(claim))
            await super().delete(model, name, uid=uid, statement=statement)

    client = Claimed.from_kubeconfig(admin)
    try:
        pool = {"metadata": {"name": "again"}, "spec": {"cidr": "10.98.0.0/26", "blockSize": 28}}
        await client.create(IPPool.model_validate(pool))
        await client.create(Node.model_validate({"metadata": {"name": "alive"}}))
        await space.delete_node(client, "alive", space.Force("it is off, they said"))
        assert not client.claims
        assert "alive" not in [one.metadata.name for one in await client.list(Node)]
        assert not await client.list(IPBlock, fields="spec.node=alive")
        await client.delete(IPPool, "again")
    finally:
        await client.close()


def test_reports_of_a_node_that_is_gone_are_garbage(ctl: Ctl) -> None:
    for kind, name, spec in (
        ("Node", "gone", {}),
        ("Workload", "w.gone", {"node": "gone", "origin": "Node"}),
    ):
        document = {"apiVersion": "routed.dev/v1", "kind": kind, "metadata": {"name": name}}
        ok(ctl("create", "-f", "-", stdin=json.dumps({**document, "spec": spec})))
    ok(ctl("delete", "node", "gone"))
    found = ctl("ipam", "check")
    assert found.returncode == 1
    assert "workloads/w.gone: its node 'gone' does not exist (garbage" in found.stdout
    assert "; deleted" in ok(ctl("ipam", "check", "--fix"))
    assert "agree" in ok(ctl("ipam", "check"))

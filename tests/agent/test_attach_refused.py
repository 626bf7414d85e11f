"""An attach that the kernel refuses leaves nothing; what was deleted does not come back."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import pytest
from support.agents import agent_on

from api.client import WatchEvent
from api.resources import ObjectMeta, Resource, Workload
from api.resources.errors import ApplyError, Conflict, Invalid, StorageError
from api.resources.workload import WorkloadSpec
from routed.agent import records
from routed.agent.api import application
from routed.agent.attachment import Step
from routed.agent.control import Control
from routed.agent.intent import WATCHED, Intent
from routed.agent.plan import announce
from routed.agent.request import AttachRequest, parse_attach
from routed.kernel.fake import FakeKernel
from routed.settings import AgentSettings
from routed.state import Endpoint, Report


class Taken(FakeKernel):
    """The real kernel's answer where the namespace has a link of that name already."""

    async def attach(self, endpoint: Endpoint) -> None:
        raise Conflict(f"cannot attach {endpoint.workload}: its namespace has an eth0 already")


def test_labels_that_the_service_would_refuse_are_refused_at_once() -> None:
    """A report of such an attachment could never be stored."""
    with pytest.raises(Invalid) as caught:
        parse_attach(b'{"name": "web", "netns": "web", "labels": {"rack": "r 1"}}')
    assert "attachment 'web': labels: 'r 1' is no label value" in str(caught.value)


def test_a_refused_attach_leaves_no_record_and_no_address(tmp_path: Path) -> None:
    async def body() -> None:
        kernel = Taken()
        kernel.add_namespace("web")
        agent = agent_on(kernel, tmp_path)
        serving = asyncio.create_task(agent.writer.serve())
        wanted = AttachRequest.model_validate({"name": "web", "netns": "web"})
        with pytest.raises(Conflict):
            await agent.attach(wanted)
        serving.cancel()
        assert agent.records.all() == {}
        assert agent.book.allocator.assigned == {}
        assert list((tmp_path / "attachments").iterdir()) == []

    asyncio.run(body())


def test_an_address_of_a_block_that_perhaps_went_back_is_not_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        kernel = FakeKernel()
        kernel.add_namespace("web")
        agent = agent_on(kernel, tmp_path)
        agent.book.releasing.add("10-65-0-0-26")
        agent.blocks._sent.add("10-65-0-0-26")
        agent.book.own(agent.known_intent())

        async def claim(**_: object) -> Intent:
            return agent.known_intent()  # the service: it is yours already

        monkeypatch.setattr(agent.control, "claim", claim)
        serving = asyncio.create_task(agent.writer.serve())
        body = {"name": "web", "netns": "web", "addresses": ["10.65.0.5"]}
        wanted = AttachRequest.model_validate(body)
        with pytest.raises(Conflict, match=r"10\.65\.0\.5: its block is being given back"):
            await agent.attach(wanted)
        agent.book.releasing.clear()
        agent.book.own(agent.known_intent())
        record, _ = await agent.attach(wanted)
        serving.cancel()
        assert [str(address) for address in record.addresses] == ["10.65.0.5"]

    asyncio.run(body())


def test_what_is_being_detached_is_no_answer_to_an_attach(tmp_path: Path) -> None:
    async def body() -> None:
        kernel = FakeKernel()
        kernel.add_namespace("web")
        agent = agent_on(kernel, tmp_path)
        serving = asyncio.create_task(agent.writer.serve())
        wanted = AttachRequest.model_validate({"name": "web", "netns": "web"})
        first, _ = await agent.attach(wanted)
        agent.records.put(first.model_copy(update={"step": Step.DETACHING}))
        second, new = await agent.attach(wanted)
        serving.cancel()
        assert new
        assert second.step is Step.ATTACHED

    asyncio.run(body())


def workload(name: str, revision: int) -> Workload:
    metadata = ObjectMeta(name=name, resource_version=str(revision))
    return Workload(metadata=metadata, spec=WorkloadSpec(node="h1", netns="web"))


def in_sync(directory: Path) -> Control:
    control = Control(AgentSettings(node="h1", run_dir=directory, state_dir=directory), None)
    for plural in WATCHED:
        control.known.take(plural, WatchEvent("BEGIN"))
        control.known.take(plural, WatchEvent("END"))
    return control


def held(control: Control, plural: str) -> dict[str, Resource]:
    return dict(control.known.objects[plural])


def test_an_answer_that_comes_after_the_deletion_brings_nothing_back(tmp_path: Path) -> None:
    """The answer to a status report and the watch are two connections."""
    control = in_sync(tmp_path)
    control.known.take("workloads", WatchEvent("ADDED", workload("web", 10)))
    control.known.take("workloads", WatchEvent("DELETED", workload("web", 12)))
    control.known.merge(workload("web", 11))
    assert held(control, "workloads") == {}
    control.known.take("workloads", WatchEvent("ADDED", workload("web", 13)))
    assert set(held(control, "workloads")) == {"web"}


def test_an_event_from_before_our_own_deletion_brings_nothing_back(tmp_path: Path) -> None:
    control = in_sync(tmp_path)
    control.known.merge(workload("web", 11))
    control.known.drop("workloads", "web")
    control.known.take("workloads", WatchEvent("MODIFIED", workload("web", 11)))
    assert held(control, "workloads") == {}


def test_a_full_disk_refuses_attaches_and_keeps_nobody_from_leaving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes, *, durable: bool) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def body() -> None:
        kernel = FakeKernel()
        kernel.add_namespace("web")
        kernel.add_namespace("late")
        agent = agent_on(kernel, tmp_path)
        serving = asyncio.create_task(agent.writer.serve())
        await agent.attach(AttachRequest.model_validate({"name": "web", "netns": "web"}))
        monkeypatch.setattr(records, "write_atomic", full)
        with pytest.raises(StorageError) as caught:
            await agent.attach(AttachRequest.model_validate({"name": "late", "netns": "late"}))
        assert caught.value.status == 507
        local = httpx.AsyncClient(
            transport=httpx.ASGITransport(application(agent)), base_url="http://agent"
        )
        body = {"name": "late", "netns": "late"}
        answer = await local.post("/v1/attachments", json=body)
        assert (answer.status_code, answer.json()["reason"]) == (507, "InsufficientStorage")
        assert "cannot record late.h1" in answer.json()["message"]
        assert list(agent.records.all()) == ["web.h1"]
        await agent.detach("web")
        assert agent.records.all() == {}
        assert not serving.done(), "the agent goes on"
        serving.cancel()

    asyncio.run(body())


class Clinging(FakeKernel):
    """A kernel that refuses to take away."""

    clings = False

    async def detach(
        self, workloads: Sequence[str], known: Mapping[str, Endpoint] | None = None
    ) -> None:
        if self.clings:
            raise ApplyError(workloads[0], "detach", errno.EBUSY)
        await super().detach(workloads, known)


@pytest.mark.parametrize("ended", ["by a detach", "with its namespace"])
def test_what_the_kernel_will_not_take_away_ends_nobody(tmp_path: Path, ended: str) -> None:
    """It is not announced any more, and is tried again in each round until it is gone."""

    async def body() -> None:
        kernel = Clinging()
        kernel.add_namespace("web")
        agent = agent_on(kernel, tmp_path)
        serving = asyncio.create_task(agent.writer.serve())
        wanted = AttachRequest.model_validate({"name": "web", "netns": "web"})
        name = (await agent.attach(wanted))[0].id
        kernel.clings = True
        if ended == "by a detach":
            with pytest.raises(ApplyError):
                await agent.detach("web")
        else:
            kernel.delete_namespace("web")
        for _ in range(2):
            await agent.writer.run(agent._round)
            assert agent.report.failed[name].errno == errno.EBUSY
            assert announce(agent.facts(), Report(ready=agent.ready)) == {}
        kernel.clings = False
        await agent.writer.run(agent._round)
        assert agent.report.failed == {}
        assert agent.records.all() == {}
        serving.cancel()

    asyncio.run(body())

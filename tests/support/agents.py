"""An agent in this process: the real one, on a kernel and a filter that are not."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from api.client import Client
from api.ipam.space import block_name, block_of
from api.resources import IPBlock, IPPool, ObjectMeta
from api.resources.ippool import IPBlockSpec, IPPoolSpec
from api.resources.net import IPNetwork, parse_cidr
from routed.agent.agent import Agent
from routed.agent.control import Control
from routed.agent.intent import Intent
from routed.agent.speech import Speech
from routed.kernel.fake import FakeKernel
from routed.lab.hollow.host import HollowFilter
from routed.settings import AgentSettings

NODE = "h1"


def agent_on(kernel: FakeKernel, directory: Path, **pool_spec: Any) -> Agent:
    """Started, with a pool `main` and a block of it; its writer and connections do not run."""
    settings = AgentSettings(node="h1", run_dir=directory, state_dir=directory)
    control = Control(settings, None)
    agent = Agent(settings, kernel, HollowFilter(), control, Speech(directory / "speaker.sock"))
    agent.start()
    spec = IPPoolSpec(cidr=parse_cidr("10.65.0.0/16"), **pool_spec)
    pool = IPPool(metadata=ObjectMeta(name="main"), spec=spec)
    first = block_of(pool.spec.cidr.network_address, pool)
    block = owned(first)
    blocks = {block.metadata.name: block}
    agent.intent_changed(Intent(node_name="h1", pools={"main": pool}, blocks=blocks))
    return agent


def play(
    directory: Path, body: Callable[[Agent, FakeKernel], Awaitable[None]], *namespaces: str
) -> None:
    """Run `body` with an agent whose writer runs, on a kernel with these namespaces."""

    async def whole() -> None:
        kernel = FakeKernel()
        for name in namespaces:
            kernel.add_namespace(name)
        agent = agent_on(kernel, directory)
        serving = asyncio.create_task(agent.writer.serve())
        try:
            await body(agent, kernel)
        finally:
            serving.cancel()

    asyncio.run(whole())


def owned(cidr: IPNetwork) -> IPBlock:
    """A block of `main` that h1 owns."""
    spec = IPBlockSpec(node="h1", pool="main", cidr=cidr)
    return IPBlock(metadata=ObjectMeta(name=block_name(cidr)), spec=spec)


@contextlib.asynccontextmanager
async def running_agent(
    directory: Path, client: Client, kernel: FakeKernel | None = None
) -> AsyncIterator[Agent]:
    """As `routed agent` puts it together, with its files in `directory`."""
    settings = AgentSettings(
        node=NODE, run_dir=directory, state_dir=directory, kubeconfig=client_file(directory)
    )
    control, speech = Control(settings, client), Speech(directory / "speaker.sock")
    agent = Agent(settings, kernel or FakeKernel(), HollowFilter(), control, speech)
    agent.start()
    serving = asyncio.create_task(agent.serve())
    try:
        yield agent
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await client.close()


@contextlib.asynccontextmanager
async def speaking(path: Path, said: Iterable[dict[str, Any]]) -> AsyncIterator[list[Any]]:
    """A speaker that says this to whoever comes, and what it was told since."""
    heard: list[Any] = []
    text = b"".join(json.dumps(one).encode() + b"\n" for one in said)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        while line := await reader.readline():
            heard.append(json.loads(line))
            if heard[-1]["op"] == "sync":
                token = heard[-1]["token"]
                writer.write(json.dumps({"event": "synced", "token": token}).encode() + b"\n")
        writer.close()

    server = await asyncio.start_unix_server(connected, path)
    async with server:
        yield heard


def client_file(directory: Path) -> Path:
    return directory / "node.kubeconfig"


async def until(what: str, true: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for it; the test fails if it does not come."""
    try:
        async with asyncio.timeout(seconds):
            while not true():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {seconds} s: {what}") from None

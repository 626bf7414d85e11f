"""What an earlier agent may not have come to forget, the next one forgets at its start."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network
from pathlib import Path

from support.agents import agent_on, until

from api.ipam.allocator import Block
from routed.agent.request import AttachRequest
from routed.kernel.fake import FakeKernel


def test_connections_of_what_cools_and_of_fixed_addresses_that_nobody_has(tmp_path: Path) -> None:
    async def body() -> None:
        kernel = FakeKernel()
        for name in ("stays", "goes"):
            kernel.add_namespace(name)
        before = agent_on(kernel, tmp_path)
        serving = asyncio.create_task(before.writer.serve())
        stays, goes = [
            (await before.attach(AttachRequest.model_validate({"name": name, "netns": name})))[0]
            for name in ("stays", "goes")
        ]
        await before.detach("goes")
        serving.cancel()
        for address in (stays.addresses[0], goes.addresses[0], "10.67.0.3", "10.65.9.9"):
            kernel.add(f"flow 192.0.2.9 {address}")
        following = agent_on(kernel, tmp_path)
        book = following.book
        fixed = Block(ip_network("10.67.0.3/32"), "fixed")
        book.allocator.own([*book.allocator.blocks.values(), fixed], book.allocator.reserved)
        serving = asyncio.create_task(following.serve())

        def flows() -> set[str]:
            return {line.split()[2] for line in kernel.host if line.startswith("flow ")}

        await until("what was released being forgotten", lambda: len(flows()) == 2)
        assert flows() == {str(stays.addresses[0]), "10.65.9.9"}
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)

    asyncio.run(body())

"""When a certificate is renewed, and what a renewal must not overwrite."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.auth import ca, certificates, kubeconfig
from api.auth.certificates import Authority, Life
from api.auth.identity import of_node
from api.auth.kubeconfig import Access
from api.client import Client, Unreachable
from routed.agent.credentials import Credentials
from routed.settings import AgentSettings


@given(st.floats(0, 1e9), st.floats(1, 1e8), st.floats(0, 1))
def test_renewal_is_at_two_thirds_or_a_tenth_of_the_life_before(
    issued: float, seconds: float, draw: float
) -> None:
    when = Life(issued, issued + seconds).renewal(draw)
    assert 0.56 * seconds - 1e-3 <= when - issued <= 0.67 * seconds + 1e-3


class Node:
    """A certificate that is due, and what its renewal meets."""

    def __init__(self, directory: Path, seconds: int = 60) -> None:
        made = ca.ensure(directory, ["localhost"])
        self.authority = Authority(*ca.authority(made), seconds)
        self.path = directory / "node.kubeconfig"
        self.access = self.new()
        self.path.write_text(kubeconfig.render(self.access))
        self.client = Client(self.access)
        settings = AgentSettings(node="n", kubeconfig=self.path)
        self.credentials = Credentials(settings, self.client)

    def new(self) -> Access:
        key, request = certificates.key_and_request()
        signed = self.authority.sign(certificates.key_of_request(request), of_node("n").anew())
        return Access("https://localhost:1", self.authority.pem, "n", "", signed.encode(), key)

    async def signing(self, node: str, request: str) -> bytes:
        return self.authority.sign(certificates.key_of_request(request), of_node("n")).encode()


def test_a_node_that_joined_meanwhile_keeps_what_it_got(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, joined = Node(tmp_path), []

    async def renew(name: str, request: str) -> bytes:
        joined.append(node.new())
        other = tmp_path / "other"
        other.write_text(kubeconfig.render(joined[0]))
        other.rename(node.path)
        return await node.signing(name, request)

    async def body() -> None:
        monkeypatch.setattr(node.client, "certificate", renew)
        await node.credentials._renew()
        assert kubeconfig.read(node.path) == joined[0]
        await node.credentials._take_in()
        assert node.client.access == joined[0]
        await node.client.close()

    asyncio.run(body())


def test_what_is_refused_is_tried_again_later_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, asked = Node(tmp_path), []

    async def renew(name: str, request: str) -> bytes:
        asked.append(name)
        if len(asked) == 1:
            raise Unreachable("cannot reach it")
        return await node.signing(name, request)

    async def body() -> None:
        monkeypatch.setattr(node.client, "certificate", renew)
        life: Any = node.credentials.life
        now = life.issued + 0.7 * (life.expires - life.issued)
        monkeypatch.setattr("routed.agent.credentials.time.time", lambda: now)
        with pytest.raises(Unreachable):
            await node.credentials._renewed()
        await node.credentials._renewed()
        assert asked == ["n"], "not at once"
        node.credentials._next_try = 0.0
        assert await node.credentials._renewed() == ""
        assert kubeconfig.read(node.path) == node.client.access != node.access
        now = life.expires + 3600
        assert "join again" in await node.credentials._renewed()
        await node.client.close()

    asyncio.run(body())

"""When a host is said to have other addresses than it was registered with."""

from __future__ import annotations

import json
import shlex
from ipaddress import ip_address

import pytest

from api.resources import Node, ObjectMeta
from api.resources.node import NodeSpec
from routed.addressing import Choice
from routed.agent.renumbered import condition

V4, V6, OTHER = "192.0.2.1", "2001:db8::1", "192.0.2.31"


def node(*addresses: str) -> Node:
    spec = NodeSpec.model_validate({"addresses": addresses})
    return Node(metadata=ObjectMeta(name="h1"), spec=spec)


def now(*addresses: str) -> list[Choice]:
    return [Choice(ip_address(one), "eth0", "first-found") for one in addresses]


@pytest.mark.parametrize(
    ("registered", "held", "moved"),
    [
        ((V4, V6), (V4, V6), False),
        ((V6, V4), (V4, V6), False),
        ((V4, V6), (V4,), False),
        ((V4, V6), (), False),
        ((V4, V6), (OTHER, V6), True),
        ((V4,), (V4, V6), True),
        ((), (V4,), True),
    ],
)
def test_what_is_found_and_was_not_registered(
    registered: tuple[str, ...], held: tuple[str, ...], moved: bool
) -> None:
    found = condition(node(*registered), now(*held))
    assert (found.status == "True") is moved
    assert bool(found.message) is moved


def test_it_says_what_to_do() -> None:
    said = condition(node(V4, V6), now(OTHER, V6)).message
    assert said.startswith(f"registered with {V4}, {V6}, has {OTHER} (eth0) now; ")
    words = shlex.split(said.partition("if that is to stay: ")[2].partition(" (each")[0])
    assert words[:4] == ["routectl", "patch", "node", "h1"]
    assert json.loads(words[5]) == {"spec": {"addresses": [OTHER, V6]}}


def test_of_a_node_that_is_not_known_nothing_is_said() -> None:
    assert condition(None, now(V4)).status == "False"

"""A store as a fleet leaves it, written at once: nodes, two blocks of each, its workloads.

The objects are what the service itself makes of one of each kind: the first is created through it,
the others differ in name, node and address.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from api.auth import tokens
from api.ipam.blocks import block_name
from api.resources import KINDS
from api.resources.net import parse_cidr
from api.service.codec import encoded
from api.service.objects import Objects
from api.store.sqlite.store import SqliteStore

POOL = "10.0.0.0/8"
BLOCK = 64  # addresses
BLOCKS = 2  # of each node
ASN = 4_200_000_000
COMMIT = 5000  # objects in one transaction


def workload(node: int, number: int) -> str:
    return f"w{number}.n{node}"


def address(node: int, number: int) -> IPv4Address:
    return IPv4Address("10.0.0.0") + (node * BLOCKS * BLOCK + number)


def fill(path: Path, nodes: int, workloads: int) -> str:
    """`workloads` of each of `nodes`, at most two blocks full; a token of an administrator."""
    return asyncio.run(_fill(path, nodes, workloads))


async def _fill(path: Path, nodes: int, workloads: int) -> str:
    store = SqliteStore(path)
    objects = Objects(store)
    pool = {"metadata": {"name": "fleet"}, "spec": {"cidr": POOL, "announce": "Blocks"}}
    await objects.create(KINDS["ippools"], pool)
    puts: dict[str, bytes | None] = {}
    for key, value in _fleet(await _models(objects), nodes, workloads):
        puts[key] = value
        if len(puts) == COMMIT:
            await store.commit({}, puts)
            puts = {}
    await store.commit({}, puts)
    token = await tokens.issue(store, tokens.ADMIN)
    await objects.mirror.close()
    await store.close()
    return token


async def _models(objects: Objects) -> dict[str, dict[str, Any]]:
    """One of each kind, as the service has made it."""
    said = [  # Unknown: nobody is there, and so it need not be found out
        {"type": kind, "status": "Unknown", "reason": "NodeSilent"}
        for kind in ("Ready", "BGPEstablished", "ForwardBlocked")
    ]
    node = {
        "metadata": {"name": "n0", "labels": {"rack": "r0"}},
        "spec": {"addresses": ["192.0.2.1"], "asNumber": ASN},
        "status": {"conditions": said, "versions": {"routed": "0.1.0"}},
    }
    block = {"spec": {"node": "n0", "pool": "fleet"}}
    one = {
        "metadata": {"name": workload(0, 0), "labels": {"app": "web", "tier": "front"}},
        "spec": {"node": "n0", "origin": "Node", "netns": "/run/netns/w0", "containerID": "w0"},
        "status": {
            "phase": "Ready", "addresses": ["10.0.0.0"], "hostInterface": "rt0123456789ab",
            "gateway": "169.254.1.1", "conditions": [said[0]],
        },
    }  # fmt: skip
    found = {}
    for plural, wanted in (("nodes", node), ("ipblocks", block), ("workloads", one)):
        made, _ = await objects.create(KINDS[plural], wanted)
        found[plural] = json.loads(made.value)
    return found


def _fleet(
    models: dict[str, dict[str, Any]], nodes: int, workloads: int
) -> Iterator[tuple[str, bytes]]:
    for node in range(nodes):
        name, made = f"n{node}", models["nodes"]
        made["metadata"]["name"] = name
        made["metadata"]["labels"]["rack"] = f"r{node // 40}"
        made["spec"]["asNumber"] = ASN + node
        yield f"/nodes/{name}", encoded(made)
        made = models["ipblocks"]
        made["spec"]["node"] = name
        for number in range(BLOCKS):
            cidr = parse_cidr(f"{address(node, number * BLOCK)}/26")
            made["metadata"]["name"] = block_name(cidr)
            made["spec"]["cidr"] = str(cidr)
            yield f"/ipblocks/{block_name(cidr)}", encoded(made)
        made = models["workloads"]
        made["spec"]["node"] = name
        for number in range(workloads):
            made["metadata"]["name"] = workload(node, number)
            made["spec"] |= {"netns": f"/run/netns/w{number}", "containerID": f"{node}-{number}"}
            made["status"]["addresses"] = [str(address(node, number))]
            yield f"/workloads/{workload(node, number)}", encoded(made)

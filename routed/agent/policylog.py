"""The log of what policies deny, and of what they log: a line of JSON each, in `policy.log` of
stateDir, bounded as the audit log is.

The kernel tells of packets by nflog, within a limit a rule (docs/policy.md); of all of them
together no more than RATE a second are written. Nothing waits for it: what comes faster than it is
read and written is lost, and counted. The next line says how many that were.

A group of nflog has one listener, so this is only done where the settings ask for it. While
somebody else is the listener, it is tried again now and then.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.lines import Lines, now
from api.resources.policy import NAMES
from policies.compile import names
from policies.compile.chains import LOG_GROUP
from policies.logged import Flow, Logged, flow, logged
from policies.model import Direction, Plan
from policies.nflog import Listener

if TYPE_CHECKING:
    from routed.agent.agent import Agent

log = logging.getLogger("routed.agent")

RATE, BURST = 100.0, 500.0  # lines a second in the long run, and at once
AT_ONCE = 64  # datagrams, until others have their turn
RETRY_SECONDS = 10.0
OVERRUN, LIMIT, FILE = "overrun", "limit", "file"  # why something was lost
_encode = json.JSONEncoder(separators=(",", ":")).encode


class PolicyLog:
    """`heard` counts what the kernel told of, by action, `lost` what is in no line, by why."""

    def __init__(self, agent: Agent, path: Path) -> None:
        self.heard = Counter({"Deny": 0, "Log": 0})
        self.lost = Counter({OVERRUN: 0, LIMIT: 0, FILE: 0})
        self.listening = False
        self._agent = agent
        self._lines = Lines(path)
        self._failing = ""
        self._sequence: int | None = None  # of the next message
        self._allowed, self._at = BURST, 0.0  # lines, when
        self._unsaid = 0  # lost since the last line
        self._links: tuple[Plan | None, dict[str, str]] = None, {}

    async def serve(self) -> None:
        """Listen for ever, where the settings ask for it."""
        if not self._agent.settings.policy_log:
            return
        while True:
            try:
                listener = Listener(LOG_GROUP)
            except OSError as error:
                self._failed(f"group {LOG_GROUP} of nflog cannot be had: {error}")
            else:
                log.info("policy log listening path=%s", self._lines.path)
                self.listening, self._sequence = True, None
                try:
                    await self._follow(listener)
                except OSError as error:
                    self._failed(f"group {LOG_GROUP} of nflog lost: {error}")
                finally:
                    self.listening = False
                    listener.close()
                    self._lines.close()
            await asyncio.sleep(RETRY_SECONDS)

    async def _follow(self, listener: Listener) -> None:
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        while True:
            ready.clear()
            loop.add_reader(listener.fileno(), ready.set)
            try:
                await ready.wait()
            finally:
                loop.remove_reader(listener.fileno())
            found: list[bytes] = []
            for _ in range(AT_ONCE):
                if not (data := listener.take()):
                    break
                for one in logged(data):
                    found += self._taken(one, loop.time())
            if found:
                await asyncio.to_thread(self._write, found)

    def _taken(self, one: Logged, at: float) -> list[bytes]:
        """The line that it is worth, if any."""
        if one.sequence is not None:
            if self._sequence is not None:
                self._lose(OVERRUN, one.sequence - self._sequence & 0xFFFF_FFFF)
            self._sequence = one.sequence + 1
        said = names.said(one.prefix)
        if said is None:
            return []  # somebody else logs to our group
        self.heard[said.action] += 1
        self._allowed = min(BURST, self._allowed + RATE * (at - self._at))
        self._at = at
        if self._allowed < 1:
            self._lose(LIMIT, 1)
            return []
        self._allowed -= 1
        document = self._document(said, one)
        if self._unsaid:
            document["suppressed"], self._unsaid = self._unsaid, 0
        return [_encode(document).encode() + b"\n"]

    def _lose(self, why: str, count: int) -> None:
        self.lost[why] += count
        self._unsaid += count

    def _write(self, lines: list[bytes]) -> None:
        written = 0
        try:
            for line in lines:
                self._lines.append(line)
                written += 1
            self._failing = ""
        except OSError as error:
            self._lose(FILE, len(lines) - written)
            self._failed(f"cannot write {self._lines.path}: {error}")

    def _failed(self, why: str) -> None:
        if why != self._failing:
            log.warning("policy log: %s", why)
        self._failing = why

    def _document(self, said: names.Said, one: Logged) -> dict[str, Any]:
        came, leaves = _interface(one.came_by), _interface(one.leaves_by)
        plan = self._agent.guard.enforcement.wanted.plan
        inward = said.direction == Direction.INGRESS.short
        tier, policy = _whole(said.tier, plan.tiers), _whole(said.policy, plan.policies)
        return {
            "time": now(),
            "action": said.action,
            "direction": said.direction,
            "tier": tier,
            "policy": policy,
            "rule": said.rule,
            "workload": self._workload(plan, leaves if inward else came, said.direction, tier),
            "in": came,
            "out": leaves,
            **_told(flow(one.packet)),
        }

    def _workload(self, plan: Plan, link: str, direction: str, tier: str) -> str:
        """Whose policies these are; "": a host endpoint's, by which the packet passes too."""
        if self._links[0] is not plan:
            links = {placed.link: name for name, placed in plan.endpoints.items()}
            self._links = plan, links
        name = self._links[1].get(link, "")
        if not name:  # it has come since
            held = self._agent.records.held.values()
            return next((one.id for one in held if one.host_interface == link), "")
        way = next(one for one in Direction if one.short == direction)
        passed = {step.tier for step in plan.endpoints[name].of(way)}
        return name if not tier or tier in passed else ""


def _whole(name: str, known: Any) -> str:
    """A name that may have been shortened."""
    if ".." not in name:
        return name
    return next((one for one in known if names.short(one) == name), name)


def _interface(index: int) -> str:
    try:
        return socket.if_indextoname(index) if index else ""
    except OSError:  # it is gone
        return ""


def _told(seen: Flow | None) -> dict[str, Any]:
    if seen is None:
        return {}
    found: dict[str, Any] = {
        "source": str(seen.source),
        "destination": str(seen.destination),
        "protocol": NAMES.get(seen.protocol, str(seen.protocol)),
    }
    for name, value in (
        ("sourcePort", seen.source_port),
        ("destinationPort", seen.destination_port),
        ("icmpType", seen.icmp_type),
        ("icmpCode", seen.icmp_code),
    ):
        if value is not None:
            found[name] = value
    return found

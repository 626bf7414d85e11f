"""`routectl policy test`: what is expected of policies, for the CI of whoever keeps them in files.

A PolicyTest is a document beside the manifests, and no object of the service: stand-ins for the
workloads and nodes that there will be, and lists of who may and may not talk to whom. The answer
is the reference evaluator's (`policies/reference.py`). docs/policy.md has the format.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from api.resources.decode import cause_of, decode
from api.resources.errors import Cause, ConfigError, none_such
from api.resources.meta import API_VERSION, DNSSubdomain, Model
from api.resources.net import Address
from api.resources.workload import Mode, Port, Workload, WorkloadStatus
from policies.reference import Judgement, Packet, Verdict, World, gathered, judge
from routed.ctl import documents, explained, traffic

KIND = "PolicyTest"
FIRST4, FIRST6 = IPv4Address("240.0.0.1"), IPv6Address("100::1")  # RFC 1112, RFC 6666: nobody's
Words = str | list[str]
Numbers = int | str | list[int | str]


class StandIn(Model):
    """A workload that there will be; without `addresses` it is given some that nobody has."""

    name: DNSSubdomain
    labels: dict[str, str] = Field(default_factory=dict)
    node: DNSSubdomain = "node"
    mode: Mode = Mode.VETH
    addresses: list[Address] = Field(default_factory=list)
    ports: list[Port] = Field(default_factory=list)

    def workload(self) -> Workload:
        spec: dict[str, Any] = {
            "node": self.node,
            "mode": self.mode,
            "netns": self.name if self.mode in (Mode.IPVLAN_L3, Mode.IPVLAN_L3S) else "",
            "ports": [port.wire() for port in self.ports],
        }
        metadata = {"name": self.name, "labels": self.labels}
        held = Workload.model_validate({"metadata": metadata, "spec": spec})
        return _at(held, self.addresses)


class Expectation(Model):
    """Each of `from` to each of `to`, with each port and protocol that is said."""

    source: Words = Field(alias="from")
    destination: Words = Field(alias="to")
    port: Numbers = Field(default_factory=list)
    protocol: Numbers = Field(default_factory=list)
    source_port: int = Field(default=traffic.SOURCE_PORT, ge=1, le=65_535)
    because: str = ""


class PolicyTestSpec(Model):
    policy_default: Literal["Allow", "Deny"] = "Allow"
    nodes: dict[str, list[Address]] = Field(default_factory=dict)
    workloads: list[StandIn] = Field(default_factory=list)
    allow: list[Expectation] = Field(default_factory=list)
    deny: list[Expectation] = Field(default_factory=list)
    reject: list[Expectation] = Field(default_factory=list)
    would_deny: list[Expectation] = Field(default_factory=list)


class Named(Model):
    name: DNSSubdomain


class PolicyTest(Model):
    api_version: Literal["routed.dev/v1"]
    kind: Literal["PolicyTest"]
    metadata: Named
    spec: PolicyTestSpec


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many flows were judged, and a line for each that is not as expected."""

    judged: int
    differing: tuple[str, ...]


def run(files: Sequence[Path], *, recursive: bool = False) -> Outcome:
    """ConfigError has all mistakes of all files."""
    aside: dict[str, list[tuple[str, dict[str, Any]]]] = {KIND: []}
    found = documents.read(files, recursive=recursive, aside=aside)
    held = gathered(decode(kind, document) for kind, document in found)
    problems = _twice(held) + _tiers(held)
    tests = [(where, _test(where, document, problems)) for where, document in aside[KIND]]
    if not tests:
        problems.append(Cause("", f"no {KIND} in it, so nothing is expected"))
    judged, differing = 0, []
    for where, test in tests:
        if test is None:
            continue
        for line in _differing(test, _with(held, test, problems), where, problems):
            judged += 1
            differing += [line] if line else []
        if not any((test.spec.allow, test.spec.deny, test.spec.reject, test.spec.would_deny)):
            problems.append(Cause(where, "expects nothing: say allow, deny, reject or wouldDeny"))
    if problems:
        raise ConfigError(", ".join(map(str, files)), problems)
    return Outcome(judged, tuple(differing))


def _test(where: str, document: dict[str, Any], problems: list[Cause]) -> PolicyTest | None:
    try:
        return PolicyTest.model_validate({"apiVersion": API_VERSION, **document})
    except ValidationError as error:
        causes = [cause_of(problem) for problem in error.errors()]
        problems += [Cause(f"{where}: {KIND}: {one.field}", one.message) for one in causes]
        return None


def _twice(held: World) -> list[Cause]:
    kinds = (held.tiers, held.policies, held.network_sets, held.host_endpoints, held.workloads)
    counted = Counter((one.KIND, one.metadata.name) for kind in kinds for one in kind)
    return [
        Cause(f"{kind} {name!r}", "is in these files twice")
        for (kind, name), count in counted.items()
        if count > 1
    ]


def _tiers(held: World) -> list[Cause]:
    known = ["default", *(one.metadata.name for one in held.tiers)]
    return [
        Cause(f"NetworkPolicy {one.metadata.name!r}: spec.tier", none_such("tier", tier, known))
        for one in held.policies
        if (tier := one.spec.tier) not in known
    ]


def _with(held: World, test: PolicyTest, problems: list[Cause]) -> World:
    """The world with the stand-ins of `test`, all with addresses."""
    workloads = [*held.workloads, *(one.workload() for one in test.spec.workloads)]
    counted = Counter(one.metadata.name for one in workloads)
    problems += [
        Cause(f"{KIND} {test.metadata.name!r}: workload {name!r}", "is there twice")
        for name, count in counted.items()
        if count > 1 and any(one.name == name for one in test.spec.workloads)
    ]
    placed = [_addressed(one, number) for number, one in enumerate(workloads)]
    said = {name: frozenset(addresses) for name, addresses in test.spec.nodes.items()}
    nodes = {**held.nodes, **said}
    default = test.spec.policy_default
    return replace(held, workloads=tuple(placed), nodes=nodes, default=default)


def _addressed(one: Workload, number: int) -> Workload:
    if one.status.addresses or one.spec.mode in (Mode.SHARED, Mode.NONE):
        return one
    return _at(one, one.spec.addresses or [FIRST4 + number, FIRST6 + number])


def _at(one: Workload, addresses: Sequence[Any]) -> Workload:
    return one.model_copy(update={"status": WorkloadStatus(addresses=list(addresses))})


def _differing(test: PolicyTest, world: World, where: str, problems: list[Cause]) -> Iterator[str]:
    """A line for each flow that is judged: empty if it is as expected."""
    for name, expectations in (
        ("allow", test.spec.allow),
        ("deny", test.spec.deny),
        ("reject", test.spec.reject),
        ("wouldDeny", test.spec.would_deny),
    ):
        for place, expectation in enumerate(expectations):
            at = f"{test.metadata.name}: {name}[{place}]"
            try:
                flows = list(_flows(world, expectation))
            except ValueError as error:
                problems.append(Cause(f"{where}: spec.{name}[{place}]", str(error)))
                continue
            for source, destination, packet in flows:
                found = judge(world, packet)
                what = explained.flow(source, destination, packet)
                why = f" ({expectation.because})" if expectation.because else ""
                wrong = _wrong(name, found, source, destination)
                yield f"{at}: {what}: {wrong}{why}" if wrong else ""


def _wrong(name: str, found: Judgement, source: traffic.End, destination: traffic.End) -> str:
    """How it is, if that is not as the list of that name has it."""
    if name == "wouldDeny":
        if explained.staged(found, source, destination):
            return ""
        return "no staged policy would deny it"
    asked = {
        "allow": found.verdict is Verdict.ALLOW,
        "deny": found.verdict is not Verdict.ALLOW,
        "reject": found.verdict is Verdict.REJECT,
    }
    if asked[name]:
        return ""
    return explained.deciding(found, source, destination)


def _flows(
    world: World, expectation: Expectation
) -> Iterator[tuple[traffic.End, traffic.End, Packet]]:
    """ValueError."""
    whats = [traffic.port(one) for one in _listed(expectation.port)]
    whats += [traffic.protocol(one) for one in _listed(expectation.protocol)]
    if not whats:
        raise ValueError("say which port, or protocol: port: 443/tcp, protocol: ping")
    for source in _listed(expectation.source):
        for destination in _listed(expectation.destination):
            for what in whats:
                yield from traffic.packets(
                    world,
                    traffic.ends(world, str(source)),
                    traffic.ends(world, str(destination)),
                    what,
                    expectation.source_port,
                )


def _listed(said: Words | Numbers) -> list[Any]:
    return list(said) if isinstance(said, list) else [said]

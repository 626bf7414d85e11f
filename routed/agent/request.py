"""What the local API is asked: parsed once, into a value that cannot be wrong.

Every mistake of a request is reported at once (`Invalid`, 422, a cause per field); what is not
JSON or not an object is 400.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from api.resources.decode import parse_body
from api.resources.errors import Cause, Invalid
from api.resources.meta import DNSLabel, DNSSubdomain, InterfaceName, Labels, Model
from api.resources.net import Address, Cidr
from api.resources.workload import (
    Bandwidth,
    IPFamily,
    Mode,
    WorkloadPort,
    family_causes,
    mode_causes,
    port_causes,
    route_causes,
)


class AttachRequest(Model):
    """`netns` empty needs `handOver: true`: the caller moves the inner link itself."""

    name: DNSLabel
    netns: str = Field(default="", max_length=4095)
    hand_over: bool = False
    if_name: InterfaceName = "eth0"
    mode: Mode = Mode.VETH
    pools: list[DNSSubdomain] = Field(default_factory=list, max_length=16)
    addresses: list[Address] = Field(default_factory=list, max_length=16)
    lease: DNSSubdomain | Literal[""] = ""
    ip_families: list[IPFamily] = Field(default_factory=list, max_length=2)
    shared_with: DNSSubdomain | Literal[""] = ""
    container_id: str = Field(default="", alias="containerID", max_length=253)
    labels: Labels = Field(default_factory=dict)
    ports: list[WorkloadPort] = Field(default_factory=list, max_length=256)
    bandwidth: Bandwidth = Bandwidth()
    default_route: bool = True
    routes: list[Cidr] = Field(default_factory=list, max_length=64)
    mtu: int | None = Field(default=None, ge=1280, le=65_535)

    @model_validator(mode="after")
    def _form(self) -> AttachRequest:
        if self.hand_over == bool(self.netns) and self.mode is Mode.VETH:
            raise ValueError("netns: say either which namespace, or handOver: true")
        if self.hand_over and self.mode not in (Mode.VETH, Mode.TAP):
            raise ValueError(f"handOver: mode {self.mode} has no hand-over form")
        asks = bool(self.addresses or self.pools or self.ip_families or self.lease)
        for cause in mode_causes(self.mode, self.netns, self.shared_with, asks=asks):
            raise ValueError(str(cause))
        if self.lease and (self.addresses or self.pools or self.ip_families):
            said = "says which address: leave addresses, pools and ipFamilies out"
            raise ValueError(f"lease: {said}")
        if len(set(self.ip_families)) != len(self.ip_families):
            raise ValueError("ipFamilies: names a family twice")
        routes = route_causes(self.routes, "", default=self.default_route, netns=self.netns)
        limits = self.bandwidth.causes("bandwidth")
        families = family_causes(self.addresses, self.ip_families)
        for cause in (*families, *port_causes(self.ports, "ports"), *limits, *routes):
            raise ValueError(str(cause))
        return self


def parse_attach(body: bytes) -> AttachRequest:
    """The request in `body`; BadRequest or Invalid name everything that is wrong with it."""
    document = parse_body(body)
    try:
        return AttachRequest.model_validate(document)
    except ValidationError as error:
        causes = [_cause(problem) for problem in error.errors()]
        name = document.get("name")
        said = f"attachment {name!r}" if isinstance(name, str) else "the attachment"
        listed = "; ".join(str(cause) for cause in causes)
        raise Invalid(f"cannot attach {said}: {listed}", causes=causes, kind="Workload") from error


def _cause(problem: Any) -> Cause:
    path = ""
    for part in problem["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    if problem["type"] == "extra_forbidden":
        return Cause(path, "is not a field of an attachment", "FieldValueNotSupported")
    if problem["type"] == "missing":
        return Cause(path, "is required", "FieldValueRequired")
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not path and ": " in message:
        path, _, message = message.partition(": ")
    return Cause(path, message)

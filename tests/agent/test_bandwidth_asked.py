"""Limits of bandwidth that are asked for: what is refused, and what the kernel is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.resources.errors import Invalid
from api.resources.workload import Bandwidth, Mode, Origin
from routed.agent.attachment import Attachment
from routed.agent.modes import unlimited
from routed.agent.request import parse_attach
from routed.state import Limits


def attachment(mtu: int = 1500, **limits: int) -> Attachment:
    return Attachment(
        id="web.h1", name="web", node="h1", origin=Origin.NODE, addresses=[], mtu=mtu,
        bandwidth=Bandwidth.model_validate(limits),
    )  # fmt: skip


def test_what_the_kernel_is_told() -> None:
    both = {"ingressRate": 10_000_000, "egressRate": 5_000_000, "egressBurst": 400_000}
    limits = attachment(**both).limits
    assert limits == Limits(10_000_000, 1_000_000, 5_000_000, 400_000)
    assert attachment(**both).spec().bandwidth == Bandwidth.model_validate(both)
    least = attachment(mtu=9000, ingressRate=8000, ingressBurst=8).limits
    assert least is not None
    assert least.to_burst == 2 * 8 * 9014, "two packets, or none would ever pass"
    assert attachment().limits is None


@pytest.mark.parametrize(
    ("limits", "field", "said"),
    [
        ({"ingressRate": 7999}, "bandwidth.ingressRate", "at least 8000"),
        ({"egressRate": -1}, "bandwidth.egressRate", "greater than or equal"),
        ({"egressBurst": 8000}, "bandwidth.egressBurst", "of no use without egressRate"),
        ({"egressRate": 8000, "egressBurst": 480_001}, "bandwidth.egressBurst", "60 seconds"),
        ({"rate": 8000}, "bandwidth.rate", "is not a field"),
    ],
)
def test_what_is_refused(limits: dict[str, Any], field: str, said: str) -> None:
    body = json.dumps({"name": "web", "netns": "web", "bandwidth": limits}).encode()
    with pytest.raises(Invalid) as refused:
        parse_attach(body)
    assert [cause.field for cause in refused.value.causes] == [field]
    assert said in str(refused.value)


def test_a_mode_that_cannot() -> None:
    refused = unlimited("web", Mode.IPVLAN_L3, Limits(to_rate=8000))
    assert refused is not None
    assert "mode ipvlan-l3 has no limits of bandwidth: use mode veth" in str(refused)
    assert unlimited("web", Mode.IPVLAN_L3, None) is None

"""What `routed doctor` says of natAddresses."""

from __future__ import annotations

from routed.doctor import nat
from routed.doctor.findings import Verdict
from routed.settings import AgentSettings


def test_an_address_that_no_interface_has_is_told() -> None:
    def said(*addresses: str) -> list[tuple[Verdict, str]]:
        settings = AgentSettings.model_validate({"node": "h1", "natAddresses": list(addresses)})
        return [(one.verdict, one.found) for one in nat.addresses(settings)]

    assert said() == []
    assert said("127.0.0.1") == [(Verdict.OK, "127.0.0.1")]
    ((verdict, found),) = said("127.0.0.1", "2001:db8::77")
    assert verdict is Verdict.WARN
    assert "no interface has 2001:db8::77" in found

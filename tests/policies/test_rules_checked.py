"""What the kernel would refuse is told beforehand, and nothing is changed by asking."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest
from support.netns import in_fresh_namespace
from support.policing import allow_from, policy

from api.resources.errors import ApplyError
from policies.compile.compiler import compiled
from policies.compile.ruleset import Chain
from policies.model import NOTHING_TOLD, Endpoint
from policies.nft import Nft
from policies.plan import plan


def test_what_the_kernel_would_refuse() -> None:
    async def body() -> None:
        table = Nft()
        ingress = [{"action": "Deny", "reject": True}, *allow_from("all()")]
        web = Endpoint("web", {"app": "web"}, link="rtweb")
        rules = compiled(plan((), [policy("shut", ingress=ingress)], [web]), NOTHING_TOLD)
        with pytest.raises(ApplyError):
            table.policed()
        table.sync(None)
        assert not table.policed()
        table.sync(None, rules)
        assert table.policed()
        before = subprocess.check_output(["nft", "list", "ruleset"])
        table.check(rules)
        for text in ("jump egress-nowhere", 'socket cgroupv2 level 1 "nowhere" accept'):
            odd = {"egress-odd": Chain((text,), ("odd",))}
            with pytest.raises(ApplyError):
                table.check(replace(rules, chains={**rules.chains, **odd}))
        assert subprocess.check_output(["nft", "list", "ruleset"]) == before
        table.check(rules)
        table.close()

    in_fresh_namespace(body)

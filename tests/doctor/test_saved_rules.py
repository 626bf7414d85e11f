"""What doctor says of rules that somebody has saved with our tables in them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support.netns import in_fresh_namespace, run

from policies.nft import Nft
from routed.doctor.host import saved_rules


def test_our_tables_among_saved_rules_are_told_of(tmp_path: Path) -> None:
    for place, text in (
        ("etc/nftables.conf", "flush ruleset\ntable inet mine {\n}\n"),
        ("etc/nftables/more.nft", "table ip routed {\n}\n"),
    ):
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
    assert list(saved_rules(tmp_path)) == []
    with path.open("a", encoding="ascii") as file:
        file.write("table inet routed-away {\n}\n")
    (found,) = saved_rules(tmp_path)
    assert str(path) in found.found
    assert "nftables.conf" not in found.found
    assert found.remedy == "take out: table inet routed, table inet routed-away"


@pytest.mark.root
def test_what_is_saved_with_them_is_refused_as_a_whole_while_the_agent_has_them() -> None:
    async def body() -> None:
        table = Nft()
        table.sync()
        table.stand_by(anyway=True)
        saved = f"flush ruleset\n{run('nft', 'list', 'ruleset')}table inet mine {{ }}\n"

        def loaded(text: str) -> str:
            words = ["nft", "-f", "-"]
            done = subprocess.run(words, input=text, text=True, capture_output=True, check=False)
            return done.stderr

        assert "Operation not permitted" in loaded(saved)
        assert "table inet routed\n" in run("nft", "list", "tables"), "nothing was changed"
        assert loaded("flush ruleset\ntable inet mine { }\n") == ""
        assert "table inet mine" in run("nft", "list", "tables")
        table.close()

    in_fresh_namespace(body)

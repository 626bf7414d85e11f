"""What docs/policy.md shows as YAML is what the service and `policy test` take."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from api.resources.decode import decode
from api.resources.registry import by_kind
from routed.ctl import expecting

PAGE = Path(__file__).resolve().parents[2] / "docs" / "policy.md"
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_there_are_examples() -> None:
    assert len(BLOCKS) >= 6


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_each_example_is_taken(block: str, tmp_path: Path) -> None:
    documents = list(yaml.safe_load_all(block))
    for document in documents:
        if document["kind"] == expecting.KIND:
            path = tmp_path / "test.yaml"
            path.write_text(block, encoding="utf-8")
            assert expecting.run([path]).judged > 0
            continue
        kind = by_kind(document["kind"])
        assert kind is not None, document
        decode(kind, document)

"""A rack of one host and one switch; the parameter goes into the switch's configuration."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.rack import Make, Rack


@pytest.fixture
def rack(namespaces: Make, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Rack]:
    found = Rack(namespaces, tmp_path, getattr(request, "param", ""))
    yield found
    found.stop()

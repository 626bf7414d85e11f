"""A real service process, for the Python clients of Kubernetes as they are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.service import Service, running_service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("server")) as found:
        yield found

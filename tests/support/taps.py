"""Whether taps can be made here: in a container there may be no device for it."""

from __future__ import annotations

import os

import pytest

from routed.kernel import tap


def check_taps() -> None:
    """The test is skipped where they cannot be made."""
    try:
        os.close(os.open(tap.DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        pytest.skip(f"no tap can be made here: {tap.DEVICE}: {error.strerror}")

"""Running a test's body inside a fresh network namespace, and commands that must succeed."""

from __future__ import annotations

import asyncio
import ctypes
import os
import subprocess
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

CLONE_NEWNET = 0x4000_0000


def in_fresh_namespace(body: Callable[[], Awaitable[None]]) -> None:
    """Run `body` to its end in a child process with a network namespace of its own."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(read)
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.unshare(CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "unshare")
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            asyncio.run(body())  # type: ignore[arg-type]
            code = 0
        except BaseException:  # noqa: BLE001 - told to the parent, whatever it is
            os.write(write, traceback.format_exc().encode()[-60_000:])
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    if status != 0:
        pytest.fail(said or f"the body's process ended with status {status}", pytrace=False)


def run(*command: str, **options: Any) -> str:
    """Run a command that must succeed; its output."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr or done.stdout}"
    return done.stdout

"""Programs beside the one that measures: commands, and C compiled here and asked by lines."""

from __future__ import annotations

import ctypes
import resource
import subprocess
from collections.abc import Sequence
from pathlib import Path

from routed.kernel.netns import CLONE_NEWNET

SOURCES = Path(__file__).resolve().parent / "floor"


def command(*words: str, given: str | None = None) -> str:
    done = subprocess.run(words, input=given, capture_output=True, text=True, check=True)
    return done.stdout


def own_network() -> None:
    """A network namespace for this process alone."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        raise SystemExit("run me as root")


def many_descriptors() -> None:
    """As many as this process may have."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Compiled:
    """`floor/NAME.c` as a process that answers each line with one. `flags` are the compiler's."""

    def __init__(
        self,
        name: str,
        directory: Path,
        flags: Sequence[str] = (),
        arguments: Sequence[str] = (),
    ) -> None:
        binary, source = str(directory / name), str(SOURCES / f"{name}.c")
        command("gcc", "-O2", "-Wall", *flags, "-o", binary, source)
        self.child = subprocess.Popen(
            [binary, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def ask(self, line: str) -> str:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write(line + "\n")
        return self.child.stdout.readline().strip()

    def close(self) -> None:
        self.child.terminate()
        self.child.wait()

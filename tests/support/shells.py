"""A program on a terminal of its own: what a person would type and see."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence


class Terminal:
    """The other side of the terminal."""

    def __init__(self, descriptor: int, child: subprocess.Popen[bytes]) -> None:
        self.descriptor = descriptor
        self.child = child
        self.text = ""

    def type(self, text: str) -> None:
        os.write(self.descriptor, text.encode())

    def until(self, wanted: str, seconds: float = 20.0) -> str:
        """What was shown up to and with `wanted`; what follows it is kept."""
        deadline = time.monotonic() + seconds
        while wanted not in self.text:
            left = deadline - time.monotonic()
            assert left > 0, f"{wanted!r} does not come: {self.text!r}"
            if select.select([self.descriptor], [], [], min(left, 0.5))[0]:
                try:
                    read = os.read(self.descriptor, 65_536)
                except OSError:  # its last process has ended
                    read = b""
                self.text += read.decode(errors="replace")
                assert read or wanted in self.text, f"ended without {wanted!r}: {self.text!r}"
        shown, _, self.text = self.text.partition(wanted)
        return shown + wanted

    def rest(self, seconds: float = 20.0) -> str:
        """All that is shown until the program ends."""
        with contextlib.suppress(AssertionError):
            self.until("\0nothing shows this\0", seconds)
        return self.text


@contextlib.contextmanager
def terminal(
    words: Sequence[str],
    env: Mapping[str, str],
    *,
    stdout: int | None = None,
) -> Iterator[Terminal]:
    """Run `words` on a terminal; `stdout` is where its output goes if not there."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        words, stdin=theirs, stdout=theirs if stdout is None else stdout, stderr=theirs,
        env={"TERM": "xterm", "COLUMNS": "200", "LINES": "50", **env}, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        yield Terminal(ours, child)
    finally:
        child.kill()
        child.wait(10)
        os.close(ours)

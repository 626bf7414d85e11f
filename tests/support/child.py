"""A program under test that can be killed, started again, stopped and continued."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path


class Child:
    """One process of `words`, which says what it has to say to `log`; its data outlive it."""

    words: list[str]
    log: Path
    child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.child = subprocess.Popen(self.words, stdout=output, stderr=output)

    def send(self, number: signal.Signals) -> None:
        assert self.child is not None
        self.child.send_signal(number)

    def kill(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child.wait(15)
            self.child = None

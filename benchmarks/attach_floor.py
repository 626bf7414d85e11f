"""The floor of an attach: `floor/attach.c`, compiled here, asked by lines."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from routed.kernel import messages as m
from routed.state import HOST_MAC, Endpoint

SOURCE = Path(__file__).resolve().parent / "floor" / "attach.c"


def command(*words: str, given: str | None = None) -> str:
    done = subprocess.run(words, input=given, capture_output=True, text=True, check=True)
    return done.stdout


class Floor:
    """The C program, in this namespace. `flags` such as ``-DPROTOCOL=83`` are the compiler's."""

    def __init__(self, directory: Path, flags: Sequence[str] = ()) -> None:
        binary = directory / "attach"
        settings = ", ".join(f"{{{name}, {value}}}" for name, value in m.HOST_SETTINGS)
        mac = ", ".join(str(byte) for byte in HOST_MAC)
        command("gcc", "-O2", "-Wall", f"-DHOST_SETTINGS={settings}", f"-DHOST_MAC_BYTES={mac}",
                *flags, "-o", str(binary), str(SOURCE))  # fmt: skip
        self.child = subprocess.Popen(
            [str(binary)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.index = 1 << 24
        self.made: list[int] = []

    def ask(self, line: str) -> str:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()
        return self.child.stdout.readline().strip()

    def attach(self, end: Endpoint) -> float:
        """Seconds."""
        self.index += 2
        said = self.ask(
            f"{end.host_interface} {end.netns} {end.addresses[0]} {self.index} {end.mac.hex(':')}"
        )
        if not said.isdigit():
            raise RuntimeError(f"the floor failed: {said}")
        self.made.append(self.index)
        return int(said) / 1e9

    def detach(self) -> None:
        assert self.ask(f"- {self.made.pop()}") == "0"

    def detach_all(self) -> None:
        while self.made:
            self.detach()

    def close(self) -> None:
        self.child.terminate()
        self.child.wait()

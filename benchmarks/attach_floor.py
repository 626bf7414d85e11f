"""The floor of an attach: `floor/attach.c`, compiled here, asked by lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from programs import Compiled

from routed.kernel import messages as m
from routed.state import HOST_MAC, Endpoint


class Floor(Compiled):
    """The C program, in this namespace. `flags` such as ``-DPROTOCOL=83`` are the compiler's."""

    def __init__(self, directory: Path, flags: Sequence[str] = ()) -> None:
        settings = ", ".join(f"{{{name}, {value}}}" for name, value in m.HOST_SETTINGS)
        mac = ", ".join(str(byte) for byte in HOST_MAC)
        constants = (f"-DHOST_SETTINGS={settings}", f"-DHOST_MAC_BYTES={mac}")
        super().__init__("attach", directory, (*constants, *flags))
        self.index = 1 << 24
        self.made: list[int] = []

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

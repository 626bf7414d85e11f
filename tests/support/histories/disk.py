"""Disks that can be full, and lose their power.

What a program has written is in the kernel's page cache until it is synced, and `kill -9` takes
none of that away. So the store lies on a file system in a file (a loop device): what the file holds
is what the disk has got. A copy of the file, made while nobody runs, is the disk after a power cut.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.netns import run

SIZE = 1 << 30  # of the file, sparse
PART = 1 << 22


@dataclass
class Disk:
    """`place` is where files are."""

    place: Path

    @property
    def _filler(self) -> Path:
        return self.place / "filler"

    def fill(self) -> None:
        """Until nothing is free."""
        with self._filler.open("ab") as file:
            size = PART
            while size >= 1 << 12:
                try:
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, size)
                except OSError:
                    size >>= 1

    def clear(self) -> None:
        self._filler.unlink(missing_ok=True)


@dataclass
class LoopDisk(Disk):
    image: Path

    def mount(self) -> None:
        # nothing is written back by itself while a history lasts, but for what memory needs
        run("mount", "-o", "loop,commit=300", str(self.image), str(self.place))

    def unmount(self) -> None:
        run("umount", str(self.place))

    def sync(self) -> None:
        run("sync", "-f", str(self.place))

    def snapshot(self) -> Path:
        """What a power cut would leave; whoever writes must stand still."""
        copy = self.image.with_suffix(".cut")
        run("cp", "--sparse=always", str(self.image), str(copy))
        return copy

    def lose_power(self, snapshot: Path) -> None:
        """Nobody may have a file of it open."""
        self.unmount()
        snapshot.replace(self.image)
        self.mount()


@contextlib.contextmanager
def loop_disk(directory: Path) -> Iterator[LoopDisk]:
    if shutil.which("mkfs.ext4", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
        pytest.skip("needs mkfs.ext4 (Debian: e2fsprogs)")
    memory, place = directory / "memory", directory / "disk"
    with ram_disk(memory, SIZE * 2) as held:
        image = held.place / "image"
        with image.open("wb") as file:
            file.truncate(SIZE)
        run("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=1", str(image))
        place.mkdir()
        disk = LoopDisk(place, image)
        try:
            disk.mount()
        except AssertionError as error:
            pytest.skip(f"needs a loop device: {error}")
        try:
            yield disk
        finally:
            disk.unmount()


@contextlib.contextmanager
def ram_disk(place: Path, size: int) -> Iterator[Disk]:
    place.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place))
    try:
        yield Disk(place)
    finally:
        # lazily: whoever made a mount namespace meanwhile (`ip netns exec` does) has a copy of what
        # was mounted on it, and keeps that busy for as long as he runs
        run("umount", "--lazy", str(place))

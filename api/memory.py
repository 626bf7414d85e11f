"""How a process has its memory: what helps with thousands of connections and a million objects."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator

M_MMAP_THRESHOLD = -3  # malloc.h
MAPPED_BYTES = 128 << 10
Thresholds = tuple[int, int, int]  # of gc.set_threshold


def keep_buffers_apart() -> None:
    """Have malloc map large blocks, always. uvloop takes 256 KiB for each TLS connection and uses
    the first pages. glibc maps such a block, until a larger one was freed; from then on they come
    out of the heap (mallopt(3), M_MMAP_THRESHOLD), which has been used before: 22 KiB more each.
    """
    with contextlib.suppress(AttributeError):  # another libc
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)


def collect_seldom(thresholds: Thresholds) -> None:
    """What has been loaded lives for ever, and of what comes later little is in cycles: the
    collector would go through all of it again and again, for a second at a time with a million
    objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*thresholds)


@contextlib.contextmanager
def loading(thresholds: Thresholds) -> Iterator[None]:
    """While much is made that lives for ever; afterwards what comes is looked at seldom."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        collect_seldom(thresholds)

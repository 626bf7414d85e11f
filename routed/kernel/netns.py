"""Network namespaces: which may be entered, and how to be inside one without staying.

Entering is per thread (`setns`, setns(2)); `entered` must contain no `await`, or other tasks of
the loop would run inside the workload's namespace. If the way back fails the process ends at
once: nothing may ever be done to a wrong namespace.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from api.resources.errors import Cause, Invalid

NAMED = Path("/run/netns")  # where `ip netns add` keeps names
CLONE_NEWNET = 0x4000_0000
NSFS_MAGIC = 0x6E73_6673  # include/uapi/linux/magic.h
NS_GET_NSTYPE = 0xB703  # include/uapi/linux/nsfs.h

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace that was looked at: its path and (st_dev, st_ino)."""

    path: str
    identity: tuple[int, int]


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def open_own() -> int:
    """A descriptor of the namespace that this thread is in."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def opened(path: str, wanted: tuple[int, int] | None) -> Iterator[int]:
    """A descriptor of the namespace at `path`, which keeps it alive.

    OSError if there is none, or (ESTALE) another than `wanted`, its (st_dev, st_ino).
    """
    descriptor = open_checked(path, wanted)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_checked(path: str, wanted: tuple[int, int] | None) -> int:
    """The same as a descriptor that the caller closes."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    found = os.fstat(descriptor)
    if wanted not in (None, (found.st_dev, found.st_ino)):
        os.close(descriptor)
        raise OSError(errno.ESTALE, "another namespace has taken this path")
    return descriptor


@contextmanager
def entered(home: int, descriptor: int) -> Iterator[None]:
    """Be inside the namespace of `descriptor`. No `await` in the body. OSError if refused.

    `home` is a descriptor of where to return to.
    """
    _setns(descriptor)
    try:
        yield
    finally:
        try:
            _setns(home)
        except OSError:
            os.abort()


def check(name_or_path: str, own: tuple[int, int]) -> Namespace:
    """The namespace that `name_or_path` is: a name under /run/netns, or an absolute path.

    Invalid, with field ``spec.netns``, unless it is an nsfs file of a network namespace other than
    the host's own, which is `own`: (st_dev, st_ino).
    """
    if "\0" in name_or_path:
        raise _refused(name_or_path, "contains a NUL byte")
    path = name_or_path
    if not path.startswith("/"):
        if path in ("", ".", "..") or "/" in path:
            raise _refused(name_or_path, "is neither a name under /run/netns nor an absolute path")
        path = f"{NAMED}/{path}"
    try:
        # O_NONBLOCK: a FIFO at that path must not stop the agent
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        hint = "; make it with: ip netns add NAME" if error.errno == errno.ENOENT else ""
        raise _refused(name_or_path, f"cannot be opened: {error.strerror}{hint}") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or not _is_network_namespace(descriptor):
            raise _refused(name_or_path, "is not a network namespace")
        if (found.st_dev, found.st_ino) == own:
            raise _refused(name_or_path, "is the host's own network namespace")
        return Namespace(path, (found.st_dev, found.st_ino))
    finally:
        os.close(descriptor)


def identity(path: str) -> tuple[int, int] | None:
    """(st_dev, st_ino) of the namespace at `path`, or None where there is none any more."""
    try:
        found = os.stat(path)  # noqa: PTH116 - an nsfs link is followed by stat
    except OSError:
        return None
    return (found.st_dev, found.st_ino)


def _is_network_namespace(descriptor: int) -> bool:
    try:
        return fcntl.ioctl(descriptor, NS_GET_NSTYPE) == CLONE_NEWNET
    except OSError:
        return False  # ENOTTY: not an nsfs file


def _refused(said: str, why: str) -> Invalid:
    return Invalid(
        f"cannot use netns {said[:200]!r}: it {why}",
        causes=[Cause("spec.netns", f"{said[:200]!r} {why}")],
        kind="Workload",
    )

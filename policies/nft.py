"""nftables in process, by libnftables: one transaction is one call, without a process.

Only the namespace that the calling thread is in is touched, and in it only the table
``inet routed``, and our pair of rules in Docker's chain (`policies/docker.py`).
Source: libnftables(3).
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Iterable
from typing import Any

from api.resources.errors import ApplyError, Cause, ConfigError
from policies import base, docker, legacy, nat
from policies.firewall import Blocking, blocking
from policies.nat import Nat, PortMapping
from policies.slaves import NO_SLAVES, Slaves
from policies.slaves import blocking as blocking_slaves
from policies.watch import changes

NFT_CTX_OUTPUT_JSON, NFT_CTX_OUTPUT_NUMERIC_PROTO = 1 << 4, 1 << 7
NFT_CTX_OUTPUT_TERSE = 1 << 11  # without the elements of sets
ENOTSUP, ENOENT = 95, 2


class Nft:
    """A context of libnftables; not for two users at a time."""

    def __init__(self) -> None:
        try:
            self._lib = ctypes.CDLL("libnftables.so.1")
        except OSError as error:
            problem = "libnftables.so.1 is missing: install libnftables1"
            raise ConfigError("this host", [Cause("nftables", problem)]) from error
        self._lib.nft_ctx_new.restype = ctypes.c_void_p
        for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
            function = getattr(self._lib, name)
            function.argtypes = [ctypes.c_void_p]
            function.restype = ctypes.c_char_p
        for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error", "nft_ctx_free"):
            getattr(self._lib, name).argtypes = [ctypes.c_void_p]
        self._lib.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
        self._lib.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        before = _sockets()
        self._context = self._lib.nft_ctx_new(0)
        self._descriptors = _sockets() - before
        self._lib.nft_ctx_buffer_output(self._context)
        self._lib.nft_ctx_buffer_error(self._context)
        # names of protocols are those of /etc/protocols, which not every host has
        self._flags = NFT_CTX_OUTPUT_JSON | NFT_CTX_OUTPUT_NUMERIC_PROTO
        self._lib.nft_ctx_output_set_flags(self._context, self._flags)

    def close(self) -> None:
        self._lib.nft_ctx_free(self._context)
        self._context = None

    def run(self, commands: str, of: str = f"table inet {base.TABLE}") -> str:
        """Run `commands` as one transaction; its output. ApplyError, of what `of` names, if
        refused."""
        failed = self._lib.nft_run_cmd_from_buffer(self._context, commands.encode())
        said = self._lib.nft_ctx_get_error_buffer(self._context).decode(errors="replace")
        output: bytes = self._lib.nft_ctx_get_output_buffer(self._context)
        if failed:
            key = f"{of} ({' '.join(said.split())[:200]})"
            raise ApplyError(key, "change", ENOENT if "No such file" in said else ENOTSUP)
        return output.decode(errors="replace")

    def sync(self, wanted: Nat | None = None) -> bool:
        """Make the base table so, with `wanted`, which None leaves as it is; whether it had
        to be changed. ApplyError."""
        commands = base.commands(self._table(), wanted)
        if not commands:
            return False
        self.run("\n".join(commands))
        if base.commands(self._table(), wanted):
            raise ApplyError(f"table inet {base.TABLE}", "read back", ENOENT)
        return True

    def map_ports(self, ports: Iterable[PortMapping], *, add: bool) -> None:
        """Put these into the table that is there, or take them out, and nothing else. ApplyError,
        also where some were there already, or were not."""
        some, none = nat.mapped(ports), nat.mapped(())
        now, then = (none, some) if add else (some, none)
        self.run("\n".join(nat.filling(f"inet {base.TABLE}", then, now)))

    def open_docker(self) -> bool:
        """Keep our pair of rules in Docker's chain, where that is; whether that changed anything.
        ApplyError."""
        commands = docker.commands(self._ruleset())
        if commands:
            self.run("\n".join(commands), "chain DOCKER-USER")
        return bool(commands)

    def blocking(self, slaves: Slaves = NO_SLAVES) -> list[Blocking]:
        """Chains of others that cut workloads off, of the legacy iptables too; `slaves`: workloads
        of the ipvlan modes. ApplyError."""
        entries = [*self._ruleset(), *legacy.entries()]
        return blocking(entries) + blocking_slaves(entries, slaves)

    def _ruleset(self) -> list[dict[str, Any]]:
        """Everybody's chains and rules; nobody asks for the elements of sets here."""
        self._lib.nft_ctx_output_set_flags(self._context, self._flags | NFT_CTX_OUTPUT_TERSE)
        try:
            said = self.run("list ruleset", "ruleset")
        finally:
            self._lib.nft_ctx_output_set_flags(self._context, self._flags)
        listed: list[dict[str, Any]] = json.loads(said)["nftables"]
        return listed

    def watch(self) -> AsyncIterator[bool]:
        """One item for every burst of changes that others made: whether our table may be among
        what they changed."""
        return changes(self._ports)

    def _ports(self) -> set[int]:
        """Those of netlink that changes of ours come by, once there were some."""
        return set(map(_port, self._descriptors)) - {0}

    def _table(self) -> list[dict[str, Any]] | None:
        """What is in our table; None: there is none."""
        try:
            listed = self.run(f"list table inet {base.TABLE}")
        except ApplyError:
            return None
        entries: list[dict[str, Any]] = json.loads(listed)["nftables"]
        return entries


def _sockets() -> set[int]:
    """The descriptors of this process that are sockets."""
    found = set()
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers, not paths
        try:
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                found.add(int(name))
        except OSError:  # that of the listing itself
            continue
    return found


def _port(descriptor: int) -> int:
    """Of a netlink socket; 0, which is the kernel's, of any other."""
    with socket.socket(fileno=os.dup(descriptor)) as held:
        return int(held.getsockname()[0]) if held.family == socket.AF_NETLINK else 0

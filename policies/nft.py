"""nftables in process, by libnftables: one transaction is one call, without a process.

Only the namespace that the calling thread is in is touched, and in it only the table
``inet routed``, that which stands by (`policies/away.py`), and our pair of rules in Docker's chain
(`policies/docker.py`).
Source: libnftables(3).
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import re
import socket
import stat
import subprocess
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from api.resources.errors import ApplyError, Cause, ConfigError
from policies import away, base, docker, legacy, nat
from policies.compile import transaction
from policies.compile.interim import interim
from policies.compile.ruleset import Ruleset
from policies.counters import Counters, Reading
from policies.elements import Elements
from policies.firewall import Blocking, blocking
from policies.marks import AWAY, TABLE
from policies.nat import Nat, PortMapping
from policies.slaves import NO_SLAVES, Slaves
from policies.slaves import blocking as blocking_slaves
from policies.watch import changes

NFT_CTX_OUTPUT_JSON, NFT_CTX_OUTPUT_NUMERIC_PROTO = 1 << 4, 1 << 7
NFT_CTX_OUTPUT_TERSE = 1 << 11  # without the elements of sets
ENOTSUP, ENOENT = 95, 2
BULK = 1 << 18  # characters of commands, of which libnftables takes a hundred times the memory

log = logging.getLogger("routed.policies")
# the first that has a word for the flag of owned tables in JSON: those before print, or trip over,
# whatever lies in memory behind their words
LISTS_OWNED = (1, 1, 0)


class Nft:
    """A context of libnftables; not for two users at a time, but for `counted`."""

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
        self._lib.nft_ctx_set_dry_run.argtypes = [ctypes.c_void_p, ctypes.c_bool]
        self._lib.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
        self._lib.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        self._made: tuple[Nat | None, Ruleset] | None = None  # what is there, as of the last sync
        self._generation: int | None = None  # when that was so
        self._labels: bool | None = None  # whether there are any; None: not tried yet
        self._stands_by = self._opened = False
        self._elements = Elements()
        self._counters = Counters()
        before = _sockets()
        self._context = self._lib.nft_ctx_new(0)
        self._descriptors = {*(_sockets() - before), self._elements.fileno()}
        self._lib.nft_ctx_buffer_output(self._context)
        self._lib.nft_ctx_buffer_error(self._context)
        # names of protocols are those of /etc/protocols, which not every host has
        self._flags = NFT_CTX_OUTPUT_JSON | NFT_CTX_OUTPUT_NUMERIC_PROTO
        self._lib.nft_ctx_output_set_flags(self._context, self._flags)

    def close(self) -> None:
        self._lib.nft_ctx_free(self._context)
        self._context = None
        self._elements.close()
        self._counters.close()

    def run(self, commands: str, of: str = f"table inet {TABLE}") -> str:
        """Run `commands` as one transaction; its output. ApplyError, of what `of` names, if
        refused."""
        failed = self._lib.nft_run_cmd_from_buffer(self._context, commands.encode())
        said = self._lib.nft_ctx_get_error_buffer(self._context).decode(errors="replace")
        output: bytes = self._lib.nft_ctx_get_output_buffer(self._context)
        if failed:
            key = f"{of} ({' '.join(said.split())[:200]})"
            raise ApplyError(key, "change", ENOENT if "No such file" in said else ENOTSUP)
        return output.decode(errors="replace")

    def sync(
        self, wanted: Nat | None = None, policies: Ruleset | None = None, *, trusted: bool = False
    ) -> bool:
        """Make the table so, with `wanted` and `policies`, which None leaves as they are; whether
        it had to be changed. `trusted`: nobody else has changed it since the last call, so it is
        not read, and only what is wanted otherwise is changed; so it is where the kernel says that
        there was no transaction of anybody since. One transaction, or none; two where all that was
        many is gone (`policies/compile/interim.py`). ApplyError."""
        last, self._generation = self._generation, None
        before = self._elements.generation()
        known = before == last
        count = self._sync(wanted, policies, trusted=trusted or known)
        after = self._elements.generation()
        # none but ours; who was trusted may have been before the kernel told of another's
        if after - before == count and (known or not trusted):
            self._generation = after
        return count > 0

    def _sync(self, wanted: Nat | None, policies: Ruleset | None, *, trusted: bool) -> int:
        """How many transactions it took."""
        made, self._made = self._made, None
        if trusted and made is not None and policies is not None:
            changed = self._changed(made, wanted, policies)
            if changed is not None:
                self._made = made[0] if wanted is None else wanted, policies
                return int(changed)
        size, count = transaction.size(policies), 0
        labels, held = self._has_labels(), None
        if policies is not None and size >= BULK and not self._is_there():
            count += self._forestall(wanted, policies, labels=labels)
        else:
            held = self._table(size)
        self._opened = self._opened or (held is None and labels and not self._stands_by)
        commands = base.commands(held, wanted, policies, labels=labels)
        if commands:
            before, text = self._elements.generation(), "\n".join(commands)
            try:
                self._load(text)
            except ApplyError:
                if count:
                    self.run(f"delete table inet {TABLE}")
                raise
            count += 1
            # nobody else's transaction was between, and ours is the last: it is as we made it
            alone = len(text) >= BULK and self._elements.generation() == before + 1
            held = None if alone else self._table(size)
            if not alone and base.commands(held, wanted, policies, labels=labels):
                raise ApplyError(f"table inet {TABLE}", "read back", ENOENT)
        if policies is not None:
            self._made = wanted, policies
        return count

    def _forestall(self, wanted: Nat | None, policies: Ruleset, *, labels: bool) -> int:
        """Where there is no table, and what is to be in it takes long: have nothing pass meanwhile
        that it forbids. How many transactions that took."""
        try:
            self.run("\n".join(base.commands(None, wanted, interim(policies), labels=labels)))
        except ApplyError as error:  # then it is all or nothing
            log.info("not closed before the filter table is made: %s", error)
            return 0
        return 1

    def _changed(
        self, made: tuple[Nat | None, Ruleset], wanted: Nat | None, policies: Ruleset
    ) -> bool | None:
        """Change what differs from what was `made`; whether anything does. None: the table has to
        be read."""
        held, rules = made
        deltas = policies.since(rules) if wanted is None or wanted == held else None
        try:
            if deltas is not None and self._elements.change(deltas):
                return any(delta.add or delta.gone for delta in deltas)
            commands = base.changes(made, wanted, policies)
            if commands:
                self._load("\n".join(commands))
        except ApplyError as error:
            log.info("filter table is read again: %s", error)
            return None
        return None if commands is None else bool(commands)

    def policed(self) -> bool:
        """Whether the table has any rules of policies. ApplyError, also where there is no table."""
        return bool(transaction.listed(self._entries(f"list table inet {TABLE}", terse=True)))

    def check(self, rules: Ruleset) -> None:
        """ApplyError if the kernel would not take these rules of policies, by themselves: a part of
        it that they need is missing. Nothing is changed."""
        self._try(transaction.body(rules))

    def _try(self, body: str) -> None:
        self._lib.nft_ctx_set_dry_run(self._context, True)
        try:
            self.run(f"table inet {TABLE}-check {{\n{body}}}", "rules")
        finally:
            self._lib.nft_ctx_set_dry_run(self._context, False)

    def counted(self) -> Reading:
        """What rules of policies have counted. In any thread, whatever else is under way; not two
        at a time. ApplyError."""
        return self._counters.read()

    def _has_labels(self) -> bool:
        """Whether the kernel has labels of connections."""
        if self._labels is None:
            try:
                self._try(away.BEGUN)
                self._labels = True
            except ApplyError as error:
                log.warning("no labels of connections here: %s", error)
                self._labels = False
        return self._labels

    def opened(self) -> bool:
        """Whether our table was away, with nothing beside it, before it was made; told once."""
        found, self._opened = self._opened, False
        return found

    def stand_by(self, *, anyway: bool = False) -> None:
        """Have what holds while our table is away (`policies/away.py`), for as long as this is
        open; our table has to be there. ApplyError: this kernel has no such tables, another
        process has it, or (unless `anyway`) whoever lists rules here as JSON would trip over it."""
        if not self._stands_by:
            if not anyway and self._release < LISTS_OWNED:
                raise ApplyError(f"table inet {AWAY} (needs libnftables 1.1.0)", "make", ENOTSUP)
            if not self._has_labels():
                raise ApplyError(f"table inet {AWAY} (no labels of connections)", "make", ENOTSUP)
            self.run(away.text(), f"table inet {AWAY}")
            self._stands_by = True

    def map_ports(self, ports: Iterable[PortMapping], *, add: bool) -> None:
        """Put these into the table that is there, or take them out, and nothing else. ApplyError,
        also where some were there already, or were not."""
        ports = frozenset(ports)
        some, none = nat.mapped(ports), nat.mapped(())
        now, then = (none, some) if add else (some, none)
        made, self._made = self._made, None
        self.run("\n".join(nat.filling(f"inet {TABLE}", then, now)))
        if made is not None and made[0] is not None:
            held = made[0].ports
            both = held | ports if add else held - ports
            self._made = replace(made[0], ports=both), made[1]

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
        return self._entries("list ruleset", "ruleset", terse=True)

    def _entries(
        self, command: str, of: str = f"table inet {TABLE}", *, terse: bool = False
    ) -> list[dict[str, Any]]:
        flags = self._flags | (NFT_CTX_OUTPUT_TERSE if terse else 0)
        self._lib.nft_ctx_output_set_flags(self._context, flags)
        try:
            said = self.run(command, of)
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

    def _load(self, commands: str) -> None:
        """Carry them out: in a process of its own where they are many, whose memory goes with it.
        ApplyError."""
        if len(commands) < BULK or child(("-f", "-"), commands) is None:
            self.run(commands)

    @cached_property
    def _release(self) -> tuple[int, ...]:
        """Of the library, which does not change: this is asked with every round. ApplyError."""
        head = self._entries("list flowtables", "flowtables")[0]
        return tuple(map(int, re.findall(r"\d+", head["metainfo"]["version"])))

    def _is_there(self) -> bool:
        """Whether our table is, whatever is in it. ApplyError."""
        found = self._entries("list tables inet", "tables")
        return any(one.get("table", {}).get("name") == TABLE for one in found)

    def _table(self, size: int = 0) -> list[dict[str, Any]] | None:
        """What is in our table, of which about `size` bytes are known; None: there is none."""
        listing = f"list table inet {TABLE}"
        try:
            if size >= BULK and (said := child(("-j", "-p", *listing.split()))) is not None:
                entries: list[dict[str, Any]] = json.loads(said)["nftables"]
                return entries
            return self._entries(listing)
        except ApplyError:
            return None


def child(arguments: Sequence[str], given: str = "", of: str = f"table inet {TABLE}") -> str | None:
    """What nft says, as a process in the namespace of this thread; None: there is no such program,
    or it cannot be started. ApplyError, if it refuses."""
    try:
        done = subprocess.run(
            ["nft", *arguments], input=given, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    if done.returncode:
        key = f"{of} ({' '.join(done.stderr.split())[:200]})"
        raise ApplyError(key, "change", ENOENT if "No such file" in done.stderr else ENOTSUP)
    return done.stdout


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

"""A network namespace with our table in it, for the oracles of policies: the compiler's commands go
to the real kernel, and what nft lists then goes to the interpreter."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from policies.base import commands
from policies.compile.compiler import Compiler
from policies.compile.ruleset import Ruleset as Wanted
from policies.nft import Nft
from policies.plan import plan
from routed.kernel import netns as spaces
from support.netns import CLONE_NEWNET
from support.rulesets import Ruleset
from support.scenes import Scene


class Table:
    """Its namespace is entered for each call, by whatever thread, and goes when it is closed."""

    def __init__(self) -> None:
        self._home = spaces.open_own()
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._inside = spaces.open_own()
        with spaces.entered(self._home, self._inside):
            pass  # and back home
        with self._entered():
            self.nft = Nft()
            self.nft.sync()
        self.compiler = Compiler()  # one for all scenes, as an agent has one for all changes

    @contextmanager
    def _entered(self) -> Iterator[None]:
        with spaces.entered(self._home, self._inside):
            yield

    def close(self) -> None:
        with self._entered():
            self.nft.close()
        os.close(self._inside)
        os.close(self._home)

    def put(self, scene: Scene, *, trusted: bool = False) -> Ruleset:
        """What the kernel has of a scene, compiled and applied to whatever was there before."""
        return self.apply(compiled(scene, self.compiler), trusted=trusted)

    def apply(self, wanted: Wanted, *, trusted: bool = False) -> Ruleset:
        """What the kernel has then; `trusted` as in `Nft.sync`. AssertionError if it is not what
        was wanted."""
        with self._entered():
            self.nft.sync(None, wanted, trusted=trusted)
            entries: list[dict[str, Any]] = json.loads(self.nft.run("list ruleset"))["nftables"]
        assert not commands(entries, None, wanted), "not as it was wanted"
        return Ruleset(entries)


def compiled(scene: Scene, compiler: Compiler | None = None) -> Wanted:
    """What the compiler makes of it, that one if it is said."""
    made = plan(
        scene.tiers,
        scene.policies,
        scene.endpoints,
        scene.default,
        scene.interfaces,
        scene.failsafe,
        scene.ipvlan,
    )
    return (compiler or Compiler()).compile(made, scene.membership(made.needs()))

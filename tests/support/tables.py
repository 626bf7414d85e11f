"""A network namespace with our table in it, for the oracles of policies: the compiler's commands go
to the real kernel, and what nft lists then goes to the interpreter."""

from __future__ import annotations

import ctypes
import json
import os
import threading
from typing import Any

from policies.base import commands
from policies.compile.compiler import Compiler
from policies.compile.ruleset import Ruleset as Wanted
from policies.nft import Nft
from policies.plan import plan
from support.netns import CLONE_NEWNET
from support.rulesets import Ruleset
from support.scenes import Scene


class Table:
    """`nft` is bound to a namespace of its own, which goes with it: libnftables opens its socket
    where the thread is that makes it."""

    def __init__(self) -> None:
        made: list[Nft | BaseException] = []

        def make() -> None:
            try:
                if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
                made.append(Nft())
            except BaseException as error:  # noqa: BLE001 - told to the caller's thread
                made.append(error)

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if isinstance(made[0], BaseException):
            raise made[0]
        self.nft = made[0]
        self.nft.sync()
        self.compiler = Compiler()  # one for all scenes, as an agent has one for all changes

    def close(self) -> None:
        self.nft.close()

    def listed(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = json.loads(self.nft.run("list ruleset"))["nftables"]
        return entries

    def put(self, scene: Scene, *, trusted: bool = False) -> Ruleset:
        """What the kernel has of a scene, compiled and applied to whatever was there before."""
        return self.apply(compiled(scene, self.compiler), trusted=trusted)

    def apply(self, wanted: Wanted, *, trusted: bool = False) -> Ruleset:
        """What the kernel has then; `trusted` as in `Nft.sync`. AssertionError if it is not what
        was wanted."""
        self.nft.sync(None, wanted, trusted=trusted)
        entries = self.listed()
        assert not commands(entries, None, wanted), "not as it was wanted"
        return Ruleset(entries)


def compiled(scene: Scene, compiler: Compiler | None = None) -> Wanted:
    """What the compiler makes of it, that one if it is said."""
    made = plan(scene.tiers, scene.policies, scene.endpoints, scene.default)
    return (compiler or Compiler()).compile(made, scene.membership(made.needs()))

"""The objects of one kind in memory, and cursors of them: whoever reads many sees them all as they
were at one moment, though others are served, and write, between two parts of his answer.

A cursor copies nothing. It has the names of that moment (a list that is never changed, only
replaced) and is told of each object that changes before it ends what was there before. So it begins
at once with a million objects as with ten, and holds no more than what has changed since. The table
knows its cursors weakly: one that nobody reads any more is told nothing.

Pure.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from weakref import ref

from api.service.codec import document_of
from api.service.selection import Selection
from api.store import Item

PART = 100  # objects that are sent in one go as they are
DECODED = 20  # that are looked at in one go: both take a fraction of a millisecond


@dataclass(slots=True, eq=False, weakref_slot=True)
class Cursor:
    """Those of `names` that `wanted` selects; `before` has what has changed since it began."""

    wanted: Selection
    names: Iterator[str]
    count: int
    items: dict[str, Item]
    before: dict[str, Item | None] = field(default_factory=dict)

    def part(self, most: int = PART) -> list[Item] | None:
        """What is selected of the next `most` objects, by name; None: that was all."""
        names = list(islice(self.names, most))
        if not names:
            return None
        before, items = self.before, self.items
        found = [before[name] if name in before else items.get(name) for name in names]
        held = [item for item in found if item is not None]
        if self.tested:
            return [i for i in held if self.wanted(document_of(i.value, i.revision))]
        return held

    @property
    def tested(self) -> bool:
        """Whether each object has to be looked at: how many are selected is not known before."""
        return bool(self.wanted.tests or (self.wanted.name and self.wanted.node))


@dataclass(slots=True)
class Table:
    """The objects of one kind."""

    items: dict[str, Item] = field(default_factory=dict)
    nodes: dict[str, str] = field(default_factory=dict)  # by name: spec.node
    _of_node: dict[str, set[str]] = field(default_factory=dict)
    _sorted: list[str] = field(default_factory=list)
    _stale: set[str] = field(default_factory=set)  # created or deleted since that was sorted
    _cursors: list[ref[Cursor]] = field(default_factory=list)

    def names(self, node: str = "") -> list[str]:
        """Of all objects, or of those with this spec.node, in order; not to be changed."""
        if node:
            return sorted(self._of_node.get(node, ()))
        if self._stale:
            names = [name for name in self._sorted if name not in self._stale]
            names += sorted(name for name in self._stale if name in self.items)
            names.sort()  # two runs are merged
            self._sorted, self._stale = names, set()
        return self._sorted

    def cursor(self, wanted: Selection, after: str = "") -> Cursor:
        """The objects that `wanted` selects, as they are now, from the first name beyond `after`
        on."""
        if wanted.name:
            names = [wanted.name] if wanted.name in self.items else []
        else:
            names = self.names(wanted.node)
        first = bisect_right(names, after) if after else 0
        made = Cursor(wanted, islice(names, first, None), len(names) - first, self.items)
        self._cursors = [*(one for one in self._cursors if one() is not None), ref(made)]
        return made

    def put(self, name: str, item: Item | None, node: str) -> tuple[Item | None, str]:
        """Have `item` in place; what was there, and its node."""
        before, node_before = self.items.get(name), self.nodes.get(name, "")
        for one in self._cursors:
            if (cursor := one()) is not None:
                cursor.before.setdefault(name, before)
        if (before is None) != (item is None):
            self._stale.add(name)
        if item is None:
            self.items.pop(name, None)
            self.nodes.pop(name, None)
        else:
            self.items[name] = item
        if node != node_before:
            if node_before:
                self._of_node[node_before].discard(name)
                if not self._of_node[node_before]:
                    del self._of_node[node_before]
            if node:
                self._of_node.setdefault(node, set()).add(name)
                self.nodes[name] = node
        return before, node_before

"""A watch tells everything once and in order. Pure.

Who puts together what it shows has, at every moment, what was there at that revision: so an object
is added only where there is none, and changed and taken away only where it is. In the end nothing
may be missing, and each creation that was answered is there at the revision that the answer named.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from support.histories.lives import Final
from support.histories.record import OK, Operation, Seen


def wrongly_told(
    seen: Iterable[Seen], operations: Sequence[Operation], final: Final
) -> Iterator[str]:
    """`final` is what is there when the last line was read."""
    streams: dict[tuple[str, str], list[Seen]] = defaultdict(list)
    for line in seen:
        streams[line.process, line.plural].append(line)
    for (process, plural), lines in streams.items():
        told = Told(process, plural)
        for line in lines:
            yield from told.take(line)
        yield from told.ends_with(final[plural])
        yield from told.lacks(op for op in operations if op.plural == plural)


class Told:
    """What one watch has shown so far. `since`: of what came before that it was not told."""

    def __init__(self, process: str, plural: str) -> None:
        self.who = f"the watch of {plural} by {process}"
        self.present: dict[str, str] = {}
        self.added: dict[str, int] = {}
        self.deleted: set[str] = set()
        self.reached = 0
        self.since = 0

    def take(self, line: Seen) -> Iterator[str]:
        if line.type == "BEGIN":
            self.present.clear()
            return
        if line.type == "PRESENT":
            self.present[line.name] = line.uid
            return
        if line.type in ("END", "BOOKMARK"):
            if line.revision < self.reached:
                yield f"{self.who} goes back from {self.reached} to {line.revision}"
            self.reached = line.revision
            self.since = line.revision if line.type == "END" else self.since
            return
        if line.revision <= self.reached:
            yield f"{self.who} tells {line.revision} after {self.reached}"
        self.reached = line.revision
        held = self.present.get(line.name)
        if line.type == "ADDED":
            self.added[line.uid] = line.revision
            if held is not None:
                yield f"{self.who} adds {line.name} ({line.uid}) where {held} is"
            self.present[line.name] = line.uid
            return
        if held != line.uid:
            yield f"{self.who}: {line.type} {line.name} ({line.uid}) where there is {held}"
        if line.type == "DELETED":
            self.deleted.add(line.uid)
            self.present.pop(line.name, None)

    def ends_with(self, final: Mapping[str, str]) -> Iterator[str]:
        for name in sorted(self.present.keys() | final.keys()):
            shown, there = self.present.get(name), final.get(name)
            if shown != there:
                yield f"{self.who} ends with {shown} as {name}, there is {there}"

    def lacks(self, operations: Iterable[Operation]) -> Iterator[str]:
        """Answers that it does not bear out."""
        for op in operations:
            if op.outcome != OK:
                continue
            if op.verb == "create" and op.revision > self.since:
                at = self.added.get(op.uid)
                if at != op.revision:
                    yield f"{self.who} adds {op.name} ({op.uid}) at {at}, not {op.revision}"
            elif op.verb == "delete" and op.uid in self.added and op.uid not in self.deleted:
                yield f"{self.who} does not tell that {op.name} ({op.uid}) was deleted"

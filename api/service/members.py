"""What selectors and named ports stand for, kept up change by change.

Objects with the same labels are a group; a selection knows the groups that it matches, and counts
the objects that each of its entries comes from (two workloads may show one address for a moment).
So an object that changes within its group is matched with nothing, and one that is the first with
its labels is matched once with each selection, however many read it.

An entry is text: an address, a prefix, or ``ADDRESS,PROTOCOL:PORT``. A selection's version is a
sum of its entries' hashes, so every process that has read the same log, and whoever restarts, has
the same version for the same entries: readers go on from what they have at any replica.

Pure.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Protocol

from api.resources.selectors import parse

PLURALS = ("workloads", "hostendpoints", "networksets")
GROUPS_PART = 500  # that are matched in one go: a fraction of a millisecond
RECENT_MOST = 64  # changes of a selection that are kept for those who come back
RECENT_BYTES = 64 << 10  # of them
LITTLE_BYTES = 4096  # of them, that are told without a look at how long the whole is
IDLE_MOST = 256  # selections that nobody reads now, and perhaps soon again
HASH_BYTES = 24

Labels = tuple[tuple[str, str], ...]  # by name
Key = tuple[str, str]  # plural and name of an object


class Reader(Protocol):
    """Who is told each change of what he reads."""

    def put(self, line: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class Subject:
    """A selector; with `port` that port's name among those that it selects."""

    selector: str
    port: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """What an object is found by, and what it adds where it is found; `ports` are (name, entry)."""

    labels: Labels
    entries: tuple[str, ...]
    ports: tuple[tuple[str, str], ...] = ()


def standing_of(plural: str, document: Mapping[str, Any]) -> Standing | None:
    """None: it adds nothing anywhere. Not of what has failed, whose addresses may be another's, nor
    of what shares a namespace: addresses are found by the labels of their holder."""
    metadata, spec = document.get("metadata") or {}, document.get("spec") or {}
    if plural == "networksets":
        entries = _texts(spec.get("nets"))
    elif plural == "hostendpoints":
        entries = _texts(spec.get("expectedIPs"))
    else:
        status = document.get("status") or {}
        counts = status.get("phase") != "Failed" and spec.get("mode") != "shared"
        entries = _texts(status.get("addresses")) if counts else ()
    if not entries:
        return None
    named = [
        (port["name"], f"{str(port.get('protocol', 'TCP')).lower()}:{port.get('port')}")
        for port in spec.get("ports") or ()
        if isinstance(port, dict) and isinstance(port.get("name"), str) and port["name"]
    ]
    ports = dict.fromkeys((name, f"{entry},{where}") for name, where in named for entry in entries)
    labels = tuple(sorted((metadata.get("labels") or {}).items()))
    return Standing(labels, entries, tuple(ports))


@dataclass(slots=True, eq=False)
class Group:
    """All objects with these labels, and what selects them."""

    labels: dict[str, str]
    objects: dict[Key, Standing] = field(default_factory=dict)
    selections: set[Selection] = field(default_factory=set)


class Selection:
    """What one subject stands for, once it is `ready`; `uses` are those who read it, or will."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.matcher = parse(subject.selector).matcher
        self.ready = False
        self.gone = False
        self.uses = 0
        self.readers: set[Reader] = set()
        self.groups: set[Group] = set()
        self.revision = 0  # of its last change
        self._counts: dict[str, int] = {}
        self._sum = 0
        self._whole: bytes | None = None
        self._recent: deque[tuple[str, bytes]] = deque()  # line, and the version before it
        self._size = 0  # of these
        named = {"port": subject.port} if subject.port else {}
        self._head = {"selector": subject.selector, **named}

    @property
    def entries(self) -> frozenset[str]:
        return frozenset(self._counts)

    @property
    def version(self) -> str:
        """The same for the same entries, here and anywhere."""
        raw = (self._sum % (1 << 8 * HASH_BYTES)).to_bytes(HASH_BYTES, "big")
        return urlsafe_b64encode(raw).decode("ascii")

    def since(self, version: str) -> bytes:
        """The lines for a reader who has it as of `version` ("": who has nothing)."""
        if version == self.version:
            return b""
        for number in range(len(self._recent) - 1, -1, -1):
            if self._recent[number][0] == version:
                lines = b"".join([line for _, line in list(self._recent)[number:]])
                return lines if len(lines) < LITTLE_BYTES else min(lines, self.whole(), key=len)
        return self.whole()

    def whole(self) -> bytes:
        """The line that says all of it."""
        if self._whole is None:
            self._whole = self._line("WHOLE", {"add": list(self._counts)})
        return self._whole

    def change(self, before: Standing | None, after: Standing | None, revision: int) -> bytes:
        """One object that stood for the one stands for the other: the line that says so; nothing
        if that makes no difference."""
        left, came = self._of(before), self._of(after)
        version = self.version if self.ready else ""
        add = [entry for entry in came if entry not in left and self._count(entry, 1) == 1]
        remove = [entry for entry in left if entry not in came and self._count(entry, -1) == 0]
        if not add and not remove:
            return b""
        self._sum += sum(map(_hash, add)) - sum(map(_hash, remove))
        self._whole, self.revision = None, revision
        if not self.ready:
            return b""
        line = self._line("DELTA", {"add": add, "remove": remove})
        self._recent.append((version, line))
        self._size += len(line)
        while len(self._recent) > RECENT_MOST or self._size > RECENT_BYTES:
            self._size -= len(self._recent.popleft()[1])
        return line

    def _of(self, standing: Standing | None) -> tuple[str, ...]:
        if standing is None:
            return ()
        if not self.subject.port:
            return standing.entries
        return tuple(entry for name, entry in standing.ports if name == self.subject.port)

    def _count(self, entry: str, more: int) -> int:
        count = self._counts.get(entry, 0) + more
        if count:
            self._counts[entry] = count
        else:
            del self._counts[entry]
        return count

    def _line(self, kind: str, more: dict[str, Any]) -> bytes:
        at = {"version": self.version, "revision": str(self.revision)}
        whole = {"type": kind, **self._head, **at, **more}
        return json.dumps(whole, separators=(",", ":")).encode() + b"\n"


class Membership:
    """All selections that somebody uses, and those that were used last."""

    def __init__(self) -> None:
        self._objects: dict[Key, Group] = {}
        self._groups: dict[Labels, Group] = {}
        self._selections: dict[Subject, Selection] = {}
        self._idle: OrderedDict[Subject, Selection] = OrderedDict()

    def hold(self, subject: Subject) -> Selection:
        """For one who uses it, until he lets it go; where it is not `ready` it is to be evaluated
        first. SelectorError."""
        found = self._selections.get(subject)
        if found is None:
            found = self._selections[subject] = Selection(subject)
        self._idle.pop(subject, None)
        found.uses += 1
        return found

    def let_go(self, selection: Selection) -> None:
        selection.uses -= 1
        if selection.uses:
            return
        self._idle[selection.subject] = selection
        while len(self._idle) > IDLE_MOST:
            subject, oldest = self._idle.popitem(last=False)
            del self._selections[subject]
            oldest.gone = True
            for group in oldest.groups:
                group.selections.discard(oldest)

    def evaluate(self, selection: Selection) -> Iterator[None]:
        """Match it with all that is there, in parts, between which objects may change."""
        for number, group in enumerate(list(self._groups.values()), 1):
            if selection.gone:
                return
            if group.objects and group not in selection.groups:
                _match(selection, group)
            if number % GROUPS_PART == 0:
                yield
        selection.ready = True

    def put(self, key: Key, standing: Standing | None, revision: int) -> None:
        """Have the object stand for that (None: nothing), and tell all readers whom it concerns."""
        was = self._objects.get(key)
        before = was.objects[key] if was is not None else None
        if before == standing:
            return
        now = self._group(standing.labels) if standing is not None else None
        touched = {*(was.selections if was else ()), *(now.selections if now else ())}
        for selection in touched:
            line = selection.change(
                before if was is not None and selection in was.selections else None,
                standing if now is not None and selection in now.selections else None,
                revision,
            )
            if line:
                for reader in selection.readers:
                    reader.put(line)
        if now is not None and standing is not None:
            now.objects[key], self._objects[key] = standing, now
        else:
            del self._objects[key]
        if was is not None and was is not now:
            del was.objects[key]
            if not was.objects and before is not None:
                del self._groups[before.labels]
                for selection in was.selections:
                    selection.groups.discard(was)

    def _group(self, labels: Labels) -> Group:
        found = self._groups.get(labels)
        if found is None:
            found = self._groups[labels] = Group(dict(labels))
            for selection in self._selections.values():
                _match(selection, found)
        return found


def _match(selection: Selection, group: Group) -> None:
    """Whatever is in the group already is what the selection stands for as well, if it matches."""
    if not selection.matcher(group.labels):
        return
    group.selections.add(selection)
    selection.groups.add(group)
    for standing in group.objects.values():
        selection.change(None, standing, selection.revision)


def _texts(value: Any) -> tuple[str, ...]:
    """Without what is there twice."""
    return tuple(dict.fromkeys(one for one in value or () if isinstance(one, str)))


def _hash(entry: str) -> int:
    return int.from_bytes(blake2b(entry.encode(), digest_size=HASH_BYTES).digest(), "big")

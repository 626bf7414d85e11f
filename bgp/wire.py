"""The seam's messages as JSON lines: typed values in, typed values out.

A line that cannot be read is a SpeakerError that says why; nothing of it is used. Agent and speaker
may be of two releases, for the speaker is restarted seldom: a message that is not known is
`Unknown`, which its reader passes over, and a field that is not known is left out. So whatever is
added later must be harmless to leave out, or be said only to who states a version that knows it.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, TypeVar

from api.resources.errors import SpeakerError
from api.resources.net import IPNetwork, parse_address, parse_cidr
from bgp.seam import Advertisement, Path, Peer, Session

LINE_LIMIT = 1 << 20  # bytes

V = TypeVar("V", Peer, Advertisement, Session, Path)


@dataclass(frozen=True, slots=True)
class Begin:
    """`version`: of who says it; "": of a speaker or agent of 0.1."""

    revision: int
    version: str = ""


@dataclass(frozen=True, slots=True)
class End:
    """`complete`: the agent's set is whole. `received`: so is the set that the peers told us; if
    not, what an earlier speaker showed and this one did not is still to be believed."""

    revision: int
    complete: bool = False
    received: bool = True


@dataclass(frozen=True, slots=True)
class Unpeer:
    name: str


@dataclass(frozen=True, slots=True)
class Withdraw:
    prefix: IPNetwork


@dataclass(frozen=True, slots=True)
class Sync:
    token: int


@dataclass(frozen=True, slots=True)
class Stop:
    pass


@dataclass(frozen=True, slots=True)
class Unpath:
    peer: str
    prefix: IPNetwork


@dataclass(frozen=True, slots=True)
class Synced:
    token: int


@dataclass(frozen=True, slots=True)
class Stopped:
    pass


@dataclass(frozen=True, slots=True)
class LinkDown:
    prefix: IPNetwork
    link: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """What a newer reader would understand."""

    name: str


Message = (
    Begin | End | Peer | Unpeer | Advertisement | Withdraw | Sync | Stop
    | Session | Path | Unpath | Synced | Stopped | LinkDown | Unknown
)  # fmt: skip

_OPS: dict[str, type[Any]] = {
    "begin": Begin,
    "end": End,
    "peer": Peer,
    "unpeer": Unpeer,
    "advertise": Advertisement,
    "withdraw": Withdraw,
    "sync": Sync,
    "stop": Stop,
}
_EVENTS: dict[str, type[Any]] = {
    "begin": Begin,
    "end": End,
    "session": Session,
    "path": Path,
    "unpath": Unpath,
    "synced": Synced,
    "stopped": Stopped,
    "linkdown": LinkDown,
}
_OP_NAMES = {cls: name for name, cls in _OPS.items()}
_EVENT_NAMES = {cls: name for name, cls in _EVENTS.items()}
_FIELDS = {
    cls: tuple(field.name for field in dataclasses.fields(cls))
    for cls in {*_OPS.values(), *_EVENTS.values()}
}
_ADDRESSES = ("address", "local_address", "next_hop")
_encode = json.JSONEncoder(separators=(",", ":")).encode


def op(message: Message) -> bytes:
    """A line from the agent to the speaker."""
    return _line("op", _OP_NAMES[type(message)], message)


def event(message: Message) -> bytes:
    """A line from the speaker to the agent."""
    return _line("event", _EVENT_NAMES[type(message)], message)


def parse_op(line: bytes) -> Message:
    return _parse(line, "op", _OPS)


def parse_event(line: bytes) -> Message:
    return _parse(line, "event", _EVENTS)


def document(value: Any) -> dict[str, Any]:
    """A value's fields, JSON-ready."""
    return {name: _plain(getattr(value, name)) for name in _FIELDS[type(value)]}


def build(cls: type[V], fields: dict[str, Any]) -> V:
    """The inverse of `document`, without what is not known; SpeakerError if a field is missing or
    wrong."""
    known = _FIELDS[cls]
    try:
        return cls(**{name: _typed(name, fields[name]) for name in known if name in fields})
    except (TypeError, ValueError) as error:
        raise SpeakerError(f"cannot read a {cls.__name__}: {error}") from error


def _line(label: str, name: str, message: Message) -> bytes:
    fields = {label: name, **document(message)}
    if fields.get("version") == "":  # speakers before 0.1 end a connection over it
        del fields["version"]
    return _encode(fields).encode() + b"\n"


def _parse(line: bytes, label: str, known: dict[str, type[Any]]) -> Message:
    try:
        fields = json.loads(line)
        name = fields[label]
        cls = known.get(name)
        if not isinstance(name, str):
            raise TypeError(f"{label} {name!r} is no text")
    except (ValueError, KeyError, TypeError) as error:
        raise SpeakerError(f"cannot read a message of the speaker's socket: {error}") from error
    if cls is None:
        return Unknown(name)
    message: Message = build(cls, fields)
    return message


def _plain(value: Any) -> Any:
    if isinstance(value, IPv4Address | IPv6Address | IPv4Network | IPv6Network):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value


def _typed(name: str, value: Any) -> Any:
    if name == "prefix":
        return parse_cidr(value)
    if name in _ADDRESSES:
        return None if value is None else parse_address(value)
    if name == "next_hops":
        return tuple(parse_address(one) for one in value)
    return tuple(value) if isinstance(value, list) else value

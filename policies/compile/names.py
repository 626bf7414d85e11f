"""What chains, sets and rules of policies are called. Names that are too long for the kernel end in
a digest instead (NFT_CHAIN_MAXNAMELEN, NFTNL_UDATA_COMMENT_MAXLEN and NF_LOG_PREFIXLEN are 128).
Pure."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import NamedTuple

from policies.model import Direction, PortKey, Signature

# what decides where no rule does: as `what` of a label
DEFAULT, UNKNOWN_LINK, CLOSED = "default", "unknown link", "closed"
UNKNOWN_ADDRESS = "unknown address"  # of ipvlan
ACTIONS = {"deny": "Deny", "log": "Log"}  # by the word of a prefix
DIRECTIONS = {one.short for one in Direction}
LONGEST = 40  # characters of the name of a policy or tier within another name


def digest(text: str) -> str:
    """16 hexadecimal digits."""
    return hashlib.blake2s(text.encode(), digest_size=8).hexdigest()


_of_selector = lru_cache(maxsize=4096)(digest)


def short(name: str) -> str:
    """A name of the API as a part of another; no name of the API has two dots in a row."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 10]}..{digest(name)[:8]}"


def label(tier: str, policy: str, direction: Direction, what: int | str) -> str:
    """How the comment of a rule begins, and what its counter is told by: `what` is the rule's
    place in its list. `policy` "": of the tier; both "": of the endpoint."""
    whose = "/".join(short(name) for name in (tier, policy) if name)
    return " ".join(part for part in (whose, direction.short, str(what)) if part)


def prefix(word: str, direction: Direction, tier: str = "", policy: str = "") -> str:
    """What a line of the log begins with; `word` is deny or log."""
    whose = "/".join(short(name) for name in (tier, policy) if name)
    return " ".join(part for part in (word, direction.short, whose) if part)


class Said(NamedTuple):
    """What a line of the log begins with, taken apart; names may have been shortened."""

    action: str
    direction: str
    tier: str = ""
    policy: str = ""
    rule: str = DEFAULT


def said(text: str) -> Said | None:
    """Of a `prefix`, with the rule's place after it if a rule decided; None: it is none of ours."""
    words = text.split()
    if not 2 <= len(words) <= 4 or words[0] not in ACTIONS or words[1] not in DIRECTIONS:
        return None
    tier, _, policy = "".join(words[2:3]).partition("/")
    return Said(ACTIONS[words[0]], words[1], tier, policy, *words[3:])


def signature(steps: Signature) -> str:
    """Tells a signature from others; "none" if nothing selects."""
    if not steps:
        return "none"
    return digest(";".join(f"{step.tier}:{','.join(step.policies)}" for step in steps))


def group(ingress: Signature, egress: Signature) -> str:
    """Of the endpoints that have both."""
    return digest(f"{signature(ingress)} {signature(egress)}")


def links(of: str) -> str:
    """The set of a group's links."""
    return f"links-{of}"


def slaves(version: int, of: str = "") -> str:
    """The set of the addresses of workloads of the ipvlan modes; of a group's, or of all."""
    return f"slaves{version}-{of}" if of else f"slaves{version}"


def selector(text: str, version: int) -> str:
    """The set of addresses that a selector stands for."""
    return f"selector{version}-{_of_selector(text)}"


def nets(text: str, version: int) -> str:
    """The set of nets that a selector stands for."""
    return f"nets{version}-{_of_selector(text)}"


def named(key: PortKey, version: int) -> str:
    """The set of what a port's name stands for."""
    return f"named{version}-{key[0]}-{_of_selector(key[1])}"

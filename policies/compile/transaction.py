"""From what the table holds to what it has to hold: the commands of one transaction.

In an order that the kernel takes: sets and chains that are new, elements, rules, and then chains
and sets that are gone, when nothing leads to them any more. A chain that differs is emptied and
filled, all others are not touched. A set of prefixes that differs is emptied and filled too,
because two that overlap cannot take turns in it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from policies.compile.ruleset import (
    CHAIN_NAMES,
    LINKS,
    SET_NAMES,
    Chain,
    Ruleset,
    Set,
    address,
)

ODD = "?"  # an element that is none of ours, whatever it is
AT_ONCE = 2_000  # elements of one command
INTERVAL = "flags interval"


def is_ours(kind: str, name: str) -> bool:
    """Whether a chain or a set is of policies, by its name; all others are of the base table."""
    return name.startswith(CHAIN_NAMES if kind == "chain" else SET_NAMES)


def listed(entries: Iterable[Mapping[str, Any]]) -> Ruleset:
    """What of the table is of policies, as nft lists it (JSON). Rules are only told by their
    marks, "" where somebody has written one without."""
    hooks: dict[str, str] = {}
    marks: dict[str, list[str]] = {}
    sets: dict[str, Set] = {}
    for entry in entries:
        if (one := entry.get("chain")) and is_ours("chain", one["name"]):
            hooks[one["name"]] = _hook(one)
        elif (one := entry.get("rule")) and is_ours("chain", one["chain"]):
            marks.setdefault(one["chain"], []).append(one.get("comment", ""))
        elif (one := entry.get("set")) and is_ours("set", one["name"]):
            sets[one["name"]] = _set(one)
    chains = {name: Chain((), tuple(marks.get(name, ())), hook) for name, hook in hooks.items()}
    return Ruleset(chains, sets)


def _hook(one: Mapping[str, Any]) -> str:
    if "hook" not in one:
        return ""
    place = f"type {one['type']} hook {one['hook']} priority {one['prio']}"
    return f"{place}; policy {one.get('policy', 'accept')};"


def _set(one: Mapping[str, Any]) -> Set:
    words = one["type"] if isinstance(one["type"], list) else [one["type"]]
    kind = f"type {' . '.join(words)}"
    flags = [flag for flag in ("constant", "interval", "timeout") if flag in one.get("flags", ())]
    if flags:
        kind += f"; flags {','.join(flags)}"
    whole = flags == ["interval"]
    return Set(kind, frozenset(_element(item, net=whole) for item in one.get("elem", ())))


def _element(item: Any, *, net: bool) -> str:
    """An element as it is in a `Set`."""
    match item:
        case str() if net:
            return f"{address(item)}/{128 if ':' in item else 32}"
        case str():
            return address(item)
        case {"prefix": {"addr": str(first), "len": int(length)}, **more} if net and not more:
            return f"{address(first)}/{length}"
        case {"concat": [str(first), *rest], **more} if not more:
            return " . ".join(map(str, [address(first), *rest]))
    return ODD


def fits(held: Ruleset, wanted: Ruleset) -> bool:
    """Whether the one can be changed into the other; else the whole table has to be made anew,
    because what is the same by name is of another kind."""
    chains = all(
        held.chains[name].hook == one.hook
        for name, one in wanted.chains.items()
        if name in held.chains
    )
    return chains and all(
        held.sets[name].kind == one.kind for name, one in wanted.sets.items() if name in held.sets
    )


def commands(table: str, held: Ruleset, wanted: Ruleset) -> list[str]:
    """What makes the table hold what is `wanted` if it holds what is `held`, where that `fits`.
    `table` with its family."""
    new = [name for name in wanted.chains if name not in held.chains]
    differ = [name for name, one in wanted.chains.items() if not one.same(held.chains.get(name))]
    gone = [name for name in held.chains if name not in wanted.chains]
    found = [
        f"add set {table} {name} {{ {_definition(one)} }}"
        for name, one in wanted.sets.items()
        if name not in held.sets
    ]
    found += [f"add chain {table} {name} {_base(wanted.chains[name])}".rstrip() for name in new]
    for name, one in wanted.sets.items():
        found += _filling(table, name, one, held.sets.get(name))
    found += [f"flush chain {table} {name}" for name in (*differ, *gone) if name in held.chains]
    found += [
        f"add rule {table} {name} {text}" for name in differ for text in wanted.chains[name].rules
    ]
    found += [f"delete chain {table} {name}" for name in gone]
    found += [f"delete set {table} {name}" for name in held.sets if name not in wanted.sets]
    return found


def body(wanted: Ruleset) -> str:
    """The same as a part of a table's definition, without the elements of sets."""
    lines = [f"  set {name} {{ {_definition(one)} }}" for name, one in wanted.sets.items()]
    # a rule may only name chains that are there
    lines += [f"  chain {name} {{ {one.hook} }}" for name, one in wanted.chains.items()]
    for name, one in wanted.chains.items():
        lines.append(f"  chain {name} {{")
        lines += [f"    {text}" for text in one.rules]
        lines.append("  }")
    return "".join(f"{line}\n" for line in lines)


def filling(table: str, wanted: Ruleset) -> list[str]:
    """The commands that put all elements into sets that are empty."""
    return [
        command for name, one in wanted.sets.items() for command in _filling(table, name, one, None)
    ]


def _base(one: Chain) -> str:
    return f"{{ {one.hook} }}" if one.hook else ""


def _definition(one: Set) -> str:
    return f"{one.kind};" + (f' comment "{one.note}";' if one.note else "")


def _filling(table: str, name: str, wanted: Set, held: Set | None) -> Iterator[str]:
    have = frozenset[str]() if held is None else held.elements
    if wanted.elements is have or wanted.elements == have:
        return
    add, gone = wanted.elements - have, have - wanted.elements
    if gone and (ODD in gone or INTERVAL in wanted.kind or not wanted.elements):
        yield f"flush set {table} {name}"
        add = wanted.elements
    elif gone:
        yield from _elements("delete", table, name, wanted.kind, gone)
    yield from _elements("add", table, name, wanted.kind, add)


def _elements(
    verb: str, table: str, name: str, kind: str, elements: Iterable[str]
) -> Iterator[str]:
    texts = sorted(elements)
    if kind == LINKS:
        texts = [f'"{text}"' for text in texts]
    for start in range(0, len(texts), AT_ONCE):
        some = ", ".join(texts[start : start + AT_ONCE])
        yield f"{verb} element {table} {name} {{ {some} }}"


def size(wanted: Ruleset | None) -> int:
    """About how many characters it is."""
    if wanted is None:
        return 0
    elements = sum(len(one.elements) for one in wanted.sets.values())
    return 20 * elements + sum(len(text) for one in wanted.chains.values() for text in one.rules)

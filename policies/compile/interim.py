"""What holds while thousands of rules are on their way into a table that somebody has flushed.

To load them takes a second where there are 17 000, and until then nothing would be filtered. The
base chains alone take a millisecond: they let pass what they always do (answers, what is not of a
workload, what keeps the host within reach), and links and addresses (of ipvlan) that nothing is
forbidden to; where a policy
would be asked, no flow begins. So what is denied is dropped too early rather than too late, and who
is allowed to begin a flow tries once more. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from policies.compile.chains import Line
from policies.compile.names import CLOSED
from policies.compile.ruleset import Chain, Ruleset, Set, chain, label_of

_ONWARD = re.compile(r"goto (\S+)$")
_FREE = re.compile(r"@(?:links|slaves[46])-\S+ accept$")
_SET = re.compile(r"@([-\w]+)")
TRIALS = "trial-"  # what the names of chains begin with that only count


def interim(rules: Ruleset) -> Ruleset:
    """Until `rules` are there: lets nothing pass that they do not."""
    found: dict[str, Chain] = {}
    sets: dict[str, Set] = {}
    for name, one in rules.chains.items():
        if one.hook and not name.startswith(TRIALS):
            lines = list(_shortened(rules, one))
            found[name] = chain(lines, one.hook)
            for text, _ in lines:
                sets.update((asked, rules.sets[asked]) for asked in _SET.findall(text))
    return Ruleset(found, sets)


def _shortened(rules: Ruleset, base: Chain) -> Iterator[Line]:
    for text, label in _lines(base):
        onward = _ONWARD.search(text)
        if onward is None:
            yield text, label
            continue
        target = onward[1]
        for name, one in rules.chains.items():  # by links they go on from chain to chain
            if name == target or name.startswith(f"{target}-"):
                yield from (line for line in _lines(one) if _FREE.search(line[0]))
        yield f"{text[: onward.start()]}counter drop", CLOSED


def _lines(one: Chain) -> Iterator[Line]:
    """As they were before they had comments."""
    for text, mark in zip(one.rules, one.marks, strict=True):
        yield text.removesuffix(f' comment "{mark}"'), label_of(mark)

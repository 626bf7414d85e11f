"""The command line as kubectl's users write it, in the form that our parser reads. Pure.

kubectl takes its global options anywhere, flags with a value (`--wait=false`) and short options
with an equals sign (`-o=json`). None of our options has a value that looks like another option.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

GLOBAL = (  # with a value each
    "--kubeconfig", "--context", "--server", "-s", "--certificate-authority", "--token-file",
    "--token", "-n", "--namespace",
)  # fmt: skip
GLOBAL_FLAGS = ("--insecure-skip-tls-verify",)
NEGATABLE = ("wait", "overwrite")  # flags that are on unless they are denied
_FLAG = re.compile(r"--([a-z][a-z-]*)=(true|false)\Z")
_SHORT = re.compile(r"-([A-Za-z])=(.*)\Z", re.S)


def normal(words: Sequence[str], flags: Collection[str]) -> list[str]:
    """`words` with the global options first; `flags` are the names of all that have no value."""
    first: list[str] = []
    rest: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            return [*first, *rest, word, *left]
        if match := _SHORT.match(word):
            word = f"-{match[1]}{match[2]}"
        name, equals, _ = word.partition("=")
        if (match := _FLAG.match(word)) and match[1] in flags:
            if match[2] == "true":
                (first if f"--{match[1]}" in GLOBAL_FLAGS else rest).append(f"--{match[1]}")
            elif match[1] in NEGATABLE:
                rest.append(f"--no-{match[1]}")
        elif word in GLOBAL_FLAGS:
            first.append(word)
        elif name in GLOBAL:
            first.append(word)
            if not equals and left:
                first.append(left.pop(0))
        elif word[:2] in ("-s", "-n") and not word.startswith("--"):
            first.append(word)
        else:
            rest.append(word)
    return [*first, *rest]

"""How a figure is said: one JSON line, printed and kept in benchmarks/results/."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"


@contextmanager
def workplace(name: str) -> Iterator[Path]:
    """A directory of one run, on a disk, where /tmp may be memory."""
    RESULTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=RESULTS) as text:
        yield Path(text)


def figure(
    name: str, value: float, unit: str, n: int, ratio: tuple[str, float] | None = None
) -> dict[str, object]:
    """`ratio` is (to what, how many times that)."""
    told = None if ratio is None else {"to": ratio[0], "value": round(ratio[1], 3)}
    return {"name": name, "value": round(value, 3), "unit": unit, "n": n, "ratio": told}


def say(path: str, figures: Iterable[dict[str, object]]) -> None:
    """Print the figures as they come, and write them to `results/PATH`."""
    RESULTS.mkdir(exist_ok=True)
    lines = []
    for one in figures:
        lines.append(json.dumps(one) + "\n")
        print(lines[-1], end="", flush=True)
    (RESULTS / path).write_text("".join(lines), encoding="ascii")

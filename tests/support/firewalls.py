"""Rule sets of other programs, as they wrote them: recorded from firewalld 1.3.3 and ufw 0.36.2 of
Debian 12 with their defaults (and ssh let in), and after the commands that are to make the remedy
last (`policies.firewall`: FIREWALLD, UFW)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from support.docker import program

RECORDED = Path(__file__).resolve().parents[1] / "policies" / "firewalls"
LOADERS = {".nft": ["nft", "-f", "-"], ".v4": ["iptables-restore"], ".v6": ["ip6tables-restore"]}
# what people write by hand, for nft, iptables and the legacy iptables
BY_HAND = {
    "nft": "table inet wall { chain forward { type filter hook forward priority 10; policy drop;"
    " ct state established,related accept; }; chain input { type filter hook input priority 10;"
    " policy drop; ct state established,related accept; }; }",
    "iptables": "*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n"
    "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n"
    "-A FORWARD -j REJECT --reject-with icmp-host-prohibited\nCOMMIT\n",
    "legacy": "*filter\n:INPUT ACCEPT\n:FORWARD DROP\n:OUTPUT ACCEPT\n:mine -\n"
    "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n"
    "-A FORWARD -j mine\n-A mine -s 192.0.2.0/24 -j ACCEPT\nCOMMIT\n",
}
BY_HAND_LOADERS = {
    "nft": ["nft", "-f", "-"],
    "iptables": ["iptables-restore"],
    "legacy": ["iptables-legacy-restore"],
}
NAMES = ("firewalld", "ufw", *BY_HAND)
LEGACY_LISTS = ("ip_tables_names", "ip6_tables_names")


def load(name: str, words: Sequence[str] = ()) -> None:
    """Load the rules of that `name`; `words` begin each command."""
    if name in BY_HAND:
        _load([*words, *BY_HAND_LOADERS[name]], BY_HAND[name])
        return
    paths = sorted(RECORDED.glob(f"{name}.*"))
    assert paths, name
    for path in paths:
        _load([*words, *LOADERS[path.suffix]], path.read_text(encoding="utf-8"))


def _load(words: list[str], text: str) -> None:
    program(next(word for word in words if "tables" in word or word == "nft"), "iptables, nftables")
    done = subprocess.run(words, input=text, text=True, capture_output=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"


@contextmanager
def walled(name: str, words: Sequence[str]) -> Iterator[None]:
    """The rules are there inside the block, and whatever was added to them is gone after it."""
    try:
        load(name, words)
        yield
    finally:
        clear(words)


def clear(words: Sequence[str] = ()) -> None:
    """No table of any firewall but ours."""
    tables = subprocess.run(
        [*words, "nft", "list", "tables"], capture_output=True, text=True, check=True
    )
    for line in tables.stdout.splitlines():
        if not line.endswith((" routed", " routed-away")):
            subprocess.run([*words, "nft", "delete", *line.split()], check=True)
    for program_name, listing in zip(("iptables", "ip6tables"), LEGACY_LISTS, strict=True):
        held = subprocess.run(
            [*words, "cat", f"/proc/net/{listing}"], capture_output=True, check=False
        )
        if b"filter" in held.stdout:
            legacy = [*words, f"{program_name}-legacy"]
            for chain in ("INPUT", "FORWARD", "OUTPUT"):
                subprocess.run([*legacy, "-P", chain, "ACCEPT"], check=True)
            subprocess.run([*legacy, "-F"], check=True)
            subprocess.run([*legacy, "-X"], check=True)

"""Which addresses are the host's own: chosen by a method, from what the kernel has. Pure.

The methods, in the words of Calico's IP_AUTODETECTION_METHOD where it has such:

- ``control-plane`` (the default): those that the host reaches the control plane from;
- ``can-reach=DEST``: likewise of an address or a name;
- ``interface=REGEX,...``: of the first interface, by name, that one matches;
- ``cidr=CIDR,...``: those inside;
- ``skip-interface=REGEX,...``: of the first interface that none matches;
- ``first-found``: of the first interface.

Expressions are for the whole name. One of each family at most. What the host reaches a destination
from is an address of that family; the other family's is of the same interface. Where the control
plane is on this very host, so that it is reached from no address of an interface, the first found
count. The same kernel state gives the same addresses: the order is that of the interfaces' names
(tor2 before tor10), then whether an address is primary and not temporary, then the address.

Never chosen: links of ours, and addresses inside our pools wherever they are (VIPs on lo); bridges
and links that Docker, CNI plug-ins, libvirt and their like make; what is in a VRF, from which the
agent does not speak; link-local, tentative and deprecated addresses. Loopback and links that only
look like a container's (`veth*`, `dummy*`) are taken by a method that names them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_network

from api.resources.net import IPAddress, IPNetwork

OTHERS = re.compile(
    r"(docker|cbr|virbr|lxcbr|lxdbr|incusbr|cni|cali|podman|nerdctl|flannel|kube-ipvs|nodelocaldns|"
    r"tunl|lxc|vxlan\.calico|weave)|br-[0-9a-f]{12}$"
)
UNNAMED = re.compile(r"veth|dummy|vnet|tap|rt[0-9a-f]{12}$|lo$")  # unless a method names them


class By(StrEnum):
    CONTROL_PLANE = "control-plane"
    CAN_REACH = "can-reach"
    INTERFACE = "interface"
    CIDR = "cidr"
    SKIP_INTERFACE = "skip-interface"
    FIRST_FOUND = "first-found"


LISTED = "addresses"  # the method where the settings list them
PLAIN = (By.CONTROL_PLANE, By.FIRST_FOUND)  # without an argument


@dataclass(frozen=True, slots=True)
class Method:
    """Parsed once; `text` is as it was written."""

    by: By
    text: str
    patterns: tuple[re.Pattern[str], ...] = ()
    cidrs: tuple[IPNetwork, ...] = ()
    destination: str = ""

    @classmethod
    def parse(cls, text: str) -> Method:
        """ValueError says what is wrong."""
        word, _, argument = text.partition("=")
        known = ", ".join(f"{one}" if one in PLAIN else f"{one}=..." for one in By)
        try:
            by = By(word)
        except ValueError:
            raise ValueError(f"{word!r} is no method; there are {known}") from None
        if (by in PLAIN) == bool(argument):
            wrong = "takes nothing after it" if by in PLAIN else "needs something after ="
            raise ValueError(f"{by} {wrong}")
        parts = tuple(part.strip() for part in argument.split(",")) if argument else ()
        if "" in parts:
            raise ValueError(f"{by}: nothing between two commas")
        if by in (By.INTERFACE, By.SKIP_INTERFACE):
            return cls(by, text, patterns=tuple(_pattern(by, part) for part in parts))
        if by is By.CIDR:
            return cls(by, text, cidrs=tuple(ip_network(part) for part in parts))
        return cls(by, text, destination=argument)


def _pattern(by: By, text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError(f"{by}: {text!r} is no regular expression: {error}") from error


@dataclass(frozen=True, slots=True)
class Held:
    """An address of an interface."""

    address: IPAddress
    secondary: bool = False  # of IPv6: temporary
    usable: bool = True  # neither tentative nor deprecated


@dataclass(frozen=True, slots=True)
class Interface:
    """`kind` is the link's, empty for hardware; `vrf`: it is in a VRF or is one."""

    name: str
    up: bool
    addresses: tuple[Held, ...]
    kind: str = ""
    ours: bool = False
    vrf: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """An address of the host, and how it came to be that."""

    address: IPAddress
    interface: str
    method: str


def choose(
    method: Method,
    interfaces: Collection[Interface],
    sources: Collection[IPAddress] = (),
    pools: Collection[IPNetwork] = (),
) -> list[Choice]:
    """IPv4 before IPv6. `sources` are the addresses that the host reaches the destination from,
    of the methods that have one; `pools` are ours."""
    usable = {
        one.name: held
        for one in sorted(interfaces, key=lambda one: _natural(one.name))
        if _may(one) and (held := _addresses(one, pools))
    }
    found: dict[int, Choice] = {}
    for name, held in usable.items():
        for address in _wanted(method, name, held, sources):
            found.setdefault(address.version, Choice(address, name, method.text))
    if method.by in (By.CONTROL_PLANE, By.CAN_REACH):
        for choice in list(found.values()):
            for address in usable[choice.interface]:
                same = Choice(address, choice.interface, method.text)
                found.setdefault(address.version, same)
    if not found and method.by is By.CONTROL_PLANE:
        return choose(Method.parse(By.FIRST_FOUND), interfaces, (), pools)
    return [found[version] for version in sorted(found)]


def declared(addresses: Iterable[IPAddress], interfaces: Iterable[Interface]) -> list[Choice]:
    """Those that the settings list, each with the interface that has it, if one does."""
    names = {held.address: one.name for one in interfaces for held in one.addresses}
    return [Choice(address, names.get(address, ""), LISTED) for address in addresses]


def _wanted(
    method: Method, name: str, held: list[IPAddress], sources: Collection[IPAddress]
) -> list[IPAddress]:
    """Of the usable addresses of one interface those that the method means."""
    named = any(pattern.fullmatch(name) for pattern in method.patterns)
    whether: Mapping[By, Callable[[IPAddress], bool]] = {
        By.CONTROL_PLANE: lambda address: address in sources,
        By.CAN_REACH: lambda address: address in sources,
        By.INTERFACE: lambda _: named,
        By.CIDR: lambda address: any(address in cidr for cidr in method.cidrs),
        By.SKIP_INTERFACE: lambda _: not named and not UNNAMED.match(name),
        By.FIRST_FOUND: lambda _: not UNNAMED.match(name),
    }
    return [address for address in held if whether[method.by](address)]


def _may(one: Interface) -> bool:
    return one.up and not one.ours and not one.vrf and not OTHERS.match(one.name)


def _addresses(one: Interface, pools: Collection[IPNetwork]) -> list[IPAddress]:
    held = [
        each
        for each in one.addresses
        if each.usable
        and not (each.address.is_link_local or each.address.is_loopback)
        and not any(each.address in pool for pool in pools)
    ]
    held.sort(key=lambda each: (each.address.version, each.secondary, int(each.address)))
    return [each.address for each in held]


def _natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Numbers in names by their size."""
    parts = re.findall(r"\d+|\D+", name)
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts)

"""Checks of what this host talks to: its agent and speaker, the control plane, the switches."""

from __future__ import annotations

import contextlib
import email.utils
import math
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from api.auth import kubeconfig
from api.auth.certificates import life_of
from api.client import context_of
from api.resources.errors import ConfigError
from bgp.seam import Peer
from routed.agent.flapping import ROUTE_FLAPPING
from routed.agent.intent import Intent, parse
from routed.agent.own import Own
from routed.agent.plan import peers_of, unused_peers
from routed.agent.renumbered import REMEDY, RENUMBERED
from routed.doctor import sockets
from routed.doctor.findings import Finding, fail, ok, skipped, warn
from routed.doctor.ports import BGP
from routed.settings import AgentSettings

SKEW_SECONDS = 60.0
PATIENCE = 3.0


def programs(settings: AgentSettings) -> Iterator[Finding]:
    """Whether agent and speaker answer at their sockets."""
    for name, path in (("agent", settings.agent_socket), ("speaker", settings.speaker_socket)):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(PATIENCE)
            try:
                probe.connect(str(path))
            except OSError as error:
                said = f"{path}: {error.strerror or error}"
                yield warn(name, said, f"systemctl start routed-{name} (or: routed {name})")
            else:
                yield ok(name, f"answers at {path}")
    yield from heard(settings)


def heard(settings: AgentSettings) -> Iterator[Finding]:
    """What an agent that runs has seen of others, which cannot be seen by looking once."""
    transport = httpx.HTTPTransport(uds=str(settings.agent_socket))
    try:
        with httpx.Client(transport=transport, base_url="http://agent", timeout=PATIENCE) as local:
            status = local.get("/v1/status").json()
            held, sessions = status["conditions"], status["bgp"]["sessions"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return
    for one in sessions:
        if one["state"] == "Established" and one["error"]:
            remedy = (
                "let the switch and the link to it have the family, or leave it out of ipFamilies"
            )
            yield warn(f"families of {one['peer']}", one["error"], remedy)
    for one in held:
        if one["status"] != "True":
            continue
        if one["type"] == ROUTE_FLAPPING:
            found, _, remedy = one["message"].partition(": ")
            yield warn("routes", found, remedy)
        elif one["type"] == RENUMBERED:
            found, _, remedy = one["message"].partition(REMEDY)
            yield warn("addresses: registered", found, remedy)
        elif one["type"] == "ForwardBlocked":  # who of its workloads are slaves, the agent knows
            for sentence in one["message"].removeprefix("chain ").split("; chain "):
                if "ipvlan workloads" in sentence:
                    found, _, remedy = sentence.partition("; run: ")
                    yield fail("firewall: ipvlan", f"chain {found}", remedy)


def secrets(settings: AgentSettings) -> Iterator[Finding]:
    """Files that only their owner may read."""
    path = settings.kubeconfig
    try:
        mode = path.stat().st_mode & 0o777
    except OSError as error:
        yield fail("credentials", f"{path}: {error.strerror}", _join(settings))
        return
    if mode & 0o077:
        yield fail("credentials", f"{path} has mode {mode:04o}", f"chmod 0600 {path}")
        return
    try:
        certificate = kubeconfig.read(path).certificate
        left = life_of(certificate).expires - time.time() if certificate else math.inf
    except (ConfigError, ValueError) as error:
        yield fail("credentials", str(error), _join(settings))
        return
    if left <= 0:
        yield fail("credentials", f"the certificate in {path} has expired", _join(settings))
    elif left < math.inf:
        yield ok("credentials", f"{path}, mode {mode:04o}, good for {left / 86_400:.1f} days")
    else:
        yield ok("credentials", f"{path}, mode {mode:04o}")


def service(settings: AgentSettings) -> Iterator[Finding]:
    """TLS, the token and the clock, in one request."""
    kept = _intent(settings)
    try:
        access = kubeconfig.read(settings.kubeconfig)
        url, context = settings.server or access.server, context_of(access)
        headers = {"Authorization": f"Bearer {access.token}"} if access.token else {}
        with httpx.Client(verify=context, headers=headers, timeout=PATIENCE) as client:
            answer = client.get(f"{url}/apis/routed.dev/v1/nodes")
    except ConfigError as error:
        yield fail("control plane", str(error), _join(settings))
        return
    except (httpx.HTTPError, ssl.SSLError, ValueError) as error:
        said = f"{url}: {error}"
        if kept is None:
            remedy = "a node that has never reached it cannot attach: check address and firewall"
            yield fail("control plane", said, remedy)
        else:
            yield warn("control plane", said, "attaching goes on from the blocks that it holds")
        return
    if answer.status_code in (401, 403):
        said = f"{answer.status_code}: {answer.text[:200]}"
        yield fail("control plane", said, _join(settings))
        return
    yield ok("control plane", f"{url} answers {answer.status_code}")
    skew = time.time() - email.utils.parsedate_to_datetime(answer.headers["date"]).timestamp()
    if abs(skew) > SKEW_SECONDS:
        yield warn("clock", f"{skew:+.0f} s from the control plane's", "run an NTP client")
    else:
        yield ok("clock", f"{skew:+.0f} s from the control plane's")


def _join(settings: AgentSettings) -> str:
    name = settings.node
    return (
        f"on the control plane: routectl token create --node {name}; here, with what it prints on "
        f"stdin: routed join --node {name} --kubeconfig {settings.kubeconfig}"
    )


def addresses(settings: AgentSettings) -> Iterator[Finding]:
    """Which are the host's own, as an agent that starts now would choose."""
    kept, server = _intent(settings), settings.server or ""
    with contextlib.suppress(ConfigError, OSError):
        server = server or kubeconfig.read(settings.kubeconfig).server
    own = Own(settings)
    pools = [pool.spec.cidr for pool in kept.pools.values()] if kept is not None else []
    own.look(server, pools, names=True)
    said = ", ".join(f"{one.address} ({one.interface}, {one.method})" for one in own.chosen)
    lost = [str(one.address) for one in own.chosen if not one.interface]
    if lost:
        yield warn("addresses", f"{said}: no interface has {', '.join(lost)}", "correct addresses")
    elif said:
        yield ok("addresses", said)
    else:
        found = f"addressMethod {settings.address_method} finds none"
        yield warn("addresses", found, "set addressMethod or addresses in the agent's settings")


def switches(settings: AgentSettings) -> Iterator[Finding]:
    """Whether the ToRs answer at the port of BGP."""
    kept = _intent(settings)
    if kept is None:
        yield skipped("switches", "the control plane has not said yet which there are")
        return
    peers = peers_of(kept)
    if not peers:
        remedy = "routectl apply -f examples/bgppeers.yaml"
        yield warn("switches", "no BGPPeer selects this node: nothing is announced", remedy)
    for name, (_, why) in unused_peers(kept).items():
        yield warn(f"switch {name}", why, "let every peer of a node have an address of its own")
    found = (one for one in sockets.tcp() if BGP in (one.port, one.peer_port))
    connected = {one.peer for one in found if one.state == sockets.State.ESTABLISHED}
    for name, peer in peers.items():
        if peer.address in connected:
            yield ok(f"switch {name}", f"{peer.address} has a connection of BGP with this host")
        else:
            yield _dial(f"switch {name}", peer)


def _dial(check: str, peer: Peer) -> Finding:
    """What the switch says to a connection at the port of BGP. Not to be asked while a session is
    up: to a switch that knows graceful restart, another connection from this address is this
    speaker starting again, and it ends the session (RFC 4724, section 5)."""
    family = socket.AF_INET if peer.address.version == 4 else socket.AF_INET6
    with socket.socket(family) as probe:
        probe.settimeout(PATIENCE)
        to: tuple[str | int, ...] = (str(peer.address), BGP)
        try:
            if peer.address.version == 6 and peer.interface is not None:
                to += (0, socket.if_nametoindex(peer.interface))
            probe.connect(to)
        except ConnectionRefusedError:
            return warn(check, f"{peer.address} refuses", "let it accept this host")
        except OSError as error:
            if peer.password_file:
                return ok(check, f"{peer.address} is silent, as with MD5 it must be")
            return warn(check, f"{peer.address}: {error}", "check cable, address and its ACLs")
    return ok(check, f"{peer.address} answers at port {BGP}")


def directories(settings: AgentSettings) -> Iterator[Finding]:
    """Room where intent is kept."""
    directory = settings.state_dir
    while not directory.exists():
        directory = directory.parent
    usage = _free(directory)
    if usage < 16 << 20:
        yield fail("disk", f"{usage >> 20} MiB left at {directory}", "make room")
    else:
        yield ok("disk", f"{usage >> 20} MiB left at {directory}")


def _intent(settings: AgentSettings) -> Intent | None:
    """The last good intent, only looked at."""
    try:
        return parse((settings.state_dir / "intent.json").read_bytes())[0]
    except (OSError, ValueError):
        return None


def _free(directory: Path) -> int:
    import shutil

    return shutil.disk_usage(directory).free

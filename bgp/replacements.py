"""Functions of ExaBGP that are replaced: what makes 10 000 announcements slow, one of them late, a
switch that comes back wait, and sessions end when somebody sets the clock.

ExaBGP copies every route deeply for every peer although only `next-hop self` would change it; it
makes an event loop for every turn of its command queue, and looks at 50 routes a turn; and it keeps
two unsent changes of one prefix, which it may send in the wrong order. An UPDATE that follows
another may wait up to 40 ms for that one's acknowledgement (Nagle's algorithm, RFC 1122, section
4.2.3.4). To a switch that was away it tries to connect at growing intervals of up to a minute. Its
timers go by the wall clock in whole seconds: one that is set forward ends every session by its
hold timer, one that is set back stops the keepalives; and a hold timer, which expires when the hold
time has elapsed (RFC 4271, section 4.4), is up to a second late. None of it is configurable.

The replacements are written for one version. Each names the source it was written for by its
digest; if any of them differs, nothing is replaced and ExaBGP runs as it is, slower and as correct:
the speaker gives it the same commands either way.
"""

from __future__ import annotations

import hashlib
import inspect
import socket
import time
from collections.abc import Callable
from typing import Any

from exabgp.bgp import timer as timers
from exabgp.bgp.message import _NOP, KeepAlive, Notify
from exabgp.bgp.neighbor import Neighbor
from exabgp.bgp.timer import ReceiveTimer, SendTimer
from exabgp.reactor import delay as delays
from exabgp.reactor.asynchronous import ASYNC
from exabgp.reactor.delay import Delay
from exabgp.reactor.network.outgoing import Outgoing
from exabgp.rib.outgoing import OutgoingRIB
from exabgp.version import release

RELEASE = "5.0.15"
TURN = 1000  # routes in one turn of the command queue; a window of commands has fewer
RETRY = 4  # seconds at most between attempts to connect
EXPECTED = {
    "ASYNC.run": "b19e41c01689bade",
    "ASYNC._run_async": "7640837abdd9df3e",
    "Delay.backoff": "5a974c949dc74c61",
    "Delay.increase": "9e348b6f1e113f0e",
    "Neighbor.remove_self": "cbd04747e6f3e834",
    "Outgoing._setup": "52b32df410800231",
    "OutgoingRIB._update_rib": "3c013bdc1a033977",
    "OutgoingRIB.updates": "49a023385063c86e",
    "ReceiveTimer.check_ka_timer": "49f33e41e133bc45",
    "SendTimer.need_ka": "fc4b0e9f439ac331",
}

_run: Callable[[Any], bool] = ASYNC.run
_increase: Callable[[Any], None] = Delay.increase
_remove_self: Callable[[Any, Any], Any] = Neighbor.remove_self
_setup: Callable[[Any], Exception | None] = Outgoing._setup
_update_rib: Callable[[Any, Any], None] = OutgoingRIB._update_rib


class Monotonic:
    """In the place of `time` in modules that ask it for the time and nothing else."""

    time = staticmethod(time.monotonic)


def check_ka_timer(timer: Any, message: Any = _NOP, ignore: int = _NOP.TYPE) -> bool:
    """Whether to go on with the message; the Notify that ends the session when nothing has come for
    the hold time."""
    if timer.holdtime == 0:
        return bool(message.TYPE != KeepAlive.TYPE)
    now = time.monotonic()
    if ignore != message.TYPE:
        timer.last_read = now
    if now - timer.last_read >= timer.holdtime:
        raise Notify(timer.code, timer.subcode, timer.message)
    return True


def run(queue: Any) -> bool:
    """Take a turn of the queue: stock's own coroutine, which awaits nothing for generators."""
    if not queue._async:
        return False
    if any(queue._is_coroutine(callback) for _, callback in queue._async):
        return _run(queue)
    turn = queue._run_async()
    try:
        turn.send(None)
    except StopIteration as end:
        return bool(end.value)
    raise RuntimeError("ExaBGP's command queue waits for something")


def remove_self(neighbor: Any, change: Any) -> Any:
    """A route as this neighbour gets it: itself, unless its next hop has to be filled in."""
    return _remove_self(neighbor, change) if change.nlri.nexthop.SELF else change


def update_rib(rib: Any, change: Any) -> None:
    """Enqueue a change in place of an earlier, unsent one of the same prefix."""
    index = change.index()
    unsent = rib._new_nlri.get(index)
    if unsent is not None:
        families = rib._new_attr_af_nlri.get(unsent.attributes.index(), {})
        families.get(unsent.nlri.family().afi_safi(), {}).pop(index, None)
    _update_rib(rib, change)


def setup(connection: Any) -> Exception | None:
    """Make the socket of a session, one that sends at once; what went wrong, if anything."""
    failed = _setup(connection)
    if failed is None:
        connection.io.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return failed


def increase(delay: Any) -> None:
    """The next wait, bounded."""
    _increase(delay)
    delay._next = min(delay._next, RETRY)


def unexpected() -> list[str]:
    """What is not as the replacements were written for."""
    found = [] if release == RELEASE else [f"release {release}"]
    return found + [name for name, digest in EXPECTED.items() if _digest(name) != digest]


def replace() -> list[str]:
    """Replace all, or, with what is unexpected as the answer, nothing."""
    reasons = unexpected()
    if not reasons:
        ASYNC.LIMIT = TURN
        ASYNC.run = run
        Delay.increase = increase
        Neighbor.remove_self = remove_self
        Outgoing._setup = setup
        OutgoingRIB._update_rib = update_rib
        ReceiveTimer.check_ka_timer = check_ka_timer
        timers.time = delays.time = Monotonic
    return reasons


def _digest(name: str) -> str:
    owner, _, attribute = name.partition(".")
    of = (ASYNC, Delay, Neighbor, Outgoing, OutgoingRIB, ReceiveTimer, SendTimer)
    classes = {owner.__name__: owner for owner in of}
    try:
        source = inspect.getsource(getattr(classes[owner], attribute))
    except (AttributeError, OSError, TypeError):
        return "missing"
    return hashlib.sha256(source.encode()).hexdigest()[:16]

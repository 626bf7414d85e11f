"""Mode shared: workloads in the namespace of another, the holder, with its interface and addresses.

The namespace is freed by the last of them: a holder that is detached while others share with it
stays as it is, announced, until they have left (its record says `leaving`). One that is attached
anew meanwhile stays for good. A namespace that is gone ends all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from api.resources.errors import Cause, Conflict, Invalid
from api.resources.net import IPAddress
from api.resources.workload import Mode
from routed.agent.attachment import Attachment, Step

if TYPE_CHECKING:
    from routed.agent.records import Records

Ready = Mapping[str, tuple[IPAddress, ...]]


def holder_of(name: str, holder: Attachment) -> str:
    """The id of whose namespace `name` shares if it asks for that of `holder`, which may share
    itself. Invalid if it has none."""
    if holder.mode is not Mode.SHARED and not holder.netns:
        said = f"{holder.id} (mode {holder.mode}) has no namespace that is known here"
        raise Invalid(f"cannot attach {name}: {said}", causes=[Cause("sharedWith", said)])
    return holder.shared_with or holder.id


def check(records: Records, wanted: Attachment) -> None:
    """Conflict if the holder is not there, or not any more."""
    holder = records.get(wanted.shared_with)
    if holder is None or holder.step is Step.DETACHING:
        said = f"{wanted.shared_with} is not attached on node {wanted.node}"
        raise Conflict(f"cannot attach {wanted.name}: {said}", causes=[Cause("sharedWith", said)])


def with_sharers(ready: Ready, sharers: Mapping[str, Collection[str]]) -> Ready:
    """What is ready, and who shares with it; `sharers` by holder."""
    found = dict(ready)
    for holder, names in sharers.items():
        if holder in ready:
            found.update(dict.fromkeys(names, ()))
    return found

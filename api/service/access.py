"""What `kubectl auth can-i` and `whoami` ask: who am I, may I do this, what may I do.

Anybody who is somebody may ask it of himself. The reviews are those of authorization.k8s.io and
authentication.k8s.io; nothing is kept.
"""

from __future__ import annotations

from typing import Any

from api.auth.identity import Identity
from api.auth.rights import VERBS, grant
from api.resources.errors import BadRequest
from api.resources.event import EVENTS
from api.resources.meta import API_GROUP
from api.resources.registry import KINDS
from api.service.selection import at

Document = dict[str, Any]
REVIEWS = {
    "SelfSubjectAccessReview": "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
    "SelfSubjectRulesReview": "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
    "SelfSubjectReview": "/apis/authentication.k8s.io/v1/selfsubjectreviews",
}
EVENT_VERBS = ("get", "list")
BEFORE = "/apis/authentication.k8s.io/v1beta1/selfsubjectreviews"  # kubectl 1.27


def reviewed(kind: str, who: Identity, document: Any, path: str) -> Document:
    """The review, answered as it was asked for at `path`; BadRequest."""
    if not isinstance(document, dict) or document.get("kind", kind) != kind:
        raise BadRequest(f"cannot read the request: it must be a {kind}")
    _, _, group, version, _ = path.split("/")
    made: Document = {"kind": kind, "apiVersion": f"{group}/{version}", "metadata": {}}
    spec = document.get("spec") or {}
    if not isinstance(spec, dict):
        raise BadRequest(f"cannot read the {kind}: spec must be an object")
    if kind == "SelfSubjectReview":
        info = {"username": who.user, "groups": [f"routed:{who.role}"]}
        return {**made, "status": {"userInfo": info}}
    if kind == "SelfSubjectRulesReview":
        rules = {"resourceRules": _rules(who), "nonResourceRules": [], "incomplete": False}
        return {**made, "spec": spec, "status": rules}
    allowed, reason = _allowed(who, spec)
    return {**made, "spec": spec, "status": {"allowed": allowed, "reason": reason}}


def _allowed(who: Identity, spec: Document) -> tuple[bool, str]:
    """Whether it is allowed, if only with some of the objects: then the reason says so."""
    asked = spec.get("resourceAttributes")
    if not isinstance(asked, dict):
        path = at(spec, "nonResourceAttributes.path") or ""
        return path == "/metrics" and grant(who, "get", "metrics") is not None, ""
    verb, plural, name = (str(asked.get(key, "")) for key in ("verb", "resource", "name"))
    if asked.get("group", "") not in ("", "*", API_GROUP):
        return False, f"there is no group {asked['group']} here"
    if plural == EVENTS.plural:
        seen = verb in EVENT_VERBS and any(grant(who, verb, each) for each in KINDS)
        return seen, "of objects that can be seen" if seen else "events are only read"
    if plural != "*" and plural not in KINDS:
        return False, f"there are no {plural} here"
    status = asked.get("subresource") == "status"
    verbs = sorted(VERBS) if verb == "*" else ["delete" if verb == "deletecollection" else verb]
    plurals = list(KINDS) if plural == "*" else [plural]
    found = [grant(who, one, each, status=status) for one in verbs for each in plurals]
    granted = [one for one in found if one is not None]
    if len(granted) < len(found) or any(name and one.name not in ("", name) for one in granted):
        return False, f"role {who.role} does not allow it"
    return True, "" if all(one.whole for one in granted) else "of its own objects"


def _rules(who: Identity) -> list[Document]:
    found = []
    for plural in KINDS:
        for resource, status in ((plural, False), (f"{plural}/status", True)):
            verbs = [verb for verb in sorted(VERBS) if grant(who, verb, plural, status=status)]
            if verbs:
                rule = {"apiGroups": [API_GROUP], "resources": [resource], "verbs": verbs}
                found.append(rule)
    verbs = [one for one in EVENT_VERBS if any(grant(who, one, plural) for plural in KINDS)]
    if verbs:
        found.append({"apiGroups": [""], "resources": [EVENTS.plural], "verbs": verbs})
    return found

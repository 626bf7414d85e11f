"""What to do next, after an error: a command to type, or where to look. Pure."""

from __future__ import annotations

from api.client import Unreachable
from api.resources.errors import Conflict, Forbidden, NotFound, Unauthorized
from api.resources.registry import by_kind, by_name
from routed.ctl.contexts import NoContext
from routed.ctl.execplugin import PluginFailed
from routed.ctl.local import AgentForbidden, AgentUnreachable
from routed.ctl.reading import TimedOut
from routed.ctl.targets import NothingFound, UnknownKind


def hints(error: Exception) -> list[str]:
    """Sentences, each with a command; none if there is nothing to add."""
    match error:
        case NoContext():
            return [
                "to get one: routectl login SERVER --ca-pin PIN, with a token of its administrator",
                "on the control plane's machine: export KUBECONFIG=DIR/admin.kubeconfig, where DIR "
                "is its dataDir",
                "what there is: routectl config get-contexts",
            ]
        case UnknownKind():
            again = [f"perhaps: routectl get {error.near}"] if error.near else []
            return [*again, "what there is: routectl api-resources"]
        case NothingFound():
            return ["what can be named: routectl api-resources"]
        case Unauthorized():
            return [
                "the credentials in the kubeconfig are not valid any more: routectl login SERVER, "
                "with a new token (routectl token create --user NAME --role ROLE, as administrator)"
            ]
        case Forbidden():
            return [
                "who you are: routectl auth whoami",
                "what you may do: routectl auth can-i --list",
            ]
        case NotFound():
            kind = by_kind(error.kind) or by_name(error.kind)
            return [f"what there is: routectl get {kind.plural}"] if kind else []
        case AgentForbidden():
            return [
                "members of its group may: adduser NAME routed, and log in anew",
                "or go through the service: --node NODE",
            ]
        case AgentUnreachable():
            return [
                "whether it runs: systemctl status routed-agent",
                "what is wrong with this host: routed doctor",
                "or go through the service: --node NODE",
            ]
        case Unreachable():
            return [
                "which address that is: routectl config view --minify",
                "on the control plane's machine: systemctl status routed-server, "
                "journalctl -u routed-server",
            ]
        case PluginFailed():
            return ["which program that is: routectl config view --minify"]
        case Conflict() if any(c.reason == "FieldManagerConflict" for c in error.causes):
            return ["to take these fields over: routectl apply --server-side --force-conflicts"]
        case TimedOut():
            return ["it may still come; --timeout says how long to wait"]
    return []

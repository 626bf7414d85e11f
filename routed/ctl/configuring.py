"""config: contexts of the kubeconfig, shown and chosen. Nothing that proves who one is is shown."""

from __future__ import annotations

import copy
import json
from typing import Any

import yaml

from api.resources.errors import Cause, ConfigError
from routed.ctl.contexts import Entry, Kubeconfig
from routed.ctl.tables import aligned

Document = dict[str, Any]
DATA, SECRET = "DATA+OMITTED", "REDACTED"
HIDDEN = {
    "certificate-authority-data": DATA,
    "client-certificate-data": DATA,
    "client-key-data": DATA,
    "token": SECRET,
    "password": SECRET,
}


def contexts(files: Kubeconfig, form: str, *, header: bool) -> str:
    """A table, or with `form` name the names."""
    whole = files.whole
    if form == "name":
        return "\n".join(entry["name"] for entry in whole["contexts"])
    if form:
        raise ConfigError("-o", [Cause("", f"{form!r} is not name")])
    rows = [["CURRENT", "NAME", "CLUSTER", "AUTHINFO"]] if header else []
    for entry in sorted(whole["contexts"], key=lambda one: str(one["name"])):
        held = entry["context"]
        mark = "*" if entry["name"] == whole["current-context"] else ""
        rows.append([mark, entry["name"], held.get("cluster", ""), held.get("user", "")])
    return aligned(rows)


def current(files: Kubeconfig) -> str:
    """NoContext if there is none."""
    files.context()
    return str(files.whole["current-context"])


def use(files: Kubeconfig, name: str) -> str:
    files.context(name)
    files.change([], name)
    return f'Switched to context "{name}".'


def remove(files: Kubeconfig, name: str) -> str:
    """The context alone, as kubectl does."""
    files.context(name)
    files.change([Entry("contexts", name)])
    return f'deleted context "{name}"'


def view(files: Kubeconfig, context: str, form: str, *, minify: bool, raw: bool) -> str:
    """What is in effect; secrets are left out unless it is `raw`."""
    if form not in ("", "yaml", "json"):
        raise ConfigError("-o", [Cause("", f"{form!r} is none of yaml, json")])
    whole = files.whole
    if minify:
        held = files.context(context)
        name = context or whole["current-context"]
        kept = {"clusters": held.get("cluster"), "users": held.get("user"), "contexts": name}
        for plural, wanted in kept.items():
            whole[plural] = [entry for entry in whole[plural] if entry["name"] == wanted]
        whole["current-context"] = name
    shown = whole if raw else redacted(whole)
    return json.dumps(shown, indent=4) if form == "json" else _yaml(shown)


def redacted(document: Document) -> Document:
    """Without anything that proves who one is: also what an exec plug-in is told. Pure."""
    made = copy.deepcopy(document)
    for plural, inside in (("clusters", "cluster"), ("users", "user")):
        for entry in made[plural]:
            for key in HIDDEN.keys() & entry[inside].keys():
                entry[inside][key] = HIDDEN[key]
            for one in (entry[inside].get("exec") or {}).get("env") or ():
                one["value"] = SECRET
    return made


def _yaml(document: Document) -> str:
    return str(yaml.safe_dump(document, sort_keys=False)).rstrip()

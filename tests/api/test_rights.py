"""Every route by every verb, for every role, on what is its own and on what is another's.

The table is written here a second time, from docs/identity.md; a route or a kind that is not in it
fails. "own" is an object of node h1 with the label team=blue; "other" is of h2, and red: so it is
the node's own, and the one that the rules of role `blue` are for.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from starlette.routing import Route
from support.service import Service

from api.auth import bootstrap, ca, certificates, kubeconfig
from api.auth.certificates import Authority
from api.auth.kubeconfig import Access
from api.client import join
from api.resources.registry import KINDS
from api.service import access
from api.service.app import BASE, application
from api.store.sqlite.store import SqliteStore

READ = ("get", "list", "watch")
WRITE = ("create", "update", "patch", "delete")
STATUS = ("get/status", "update/status", "patch/status")
ROLES = ("admin", "operator", "viewer", "node", "bootstrap", "blue", "nobody", "revoked")

Rights = dict[str, str]  # by verb: all, own


def of(what: str, *groups: tuple[str, ...]) -> Rights:
    return {verb: what for group in groups for verb in group}


NODE_ROWS: dict[str, Rights] = {
    "nodes": of("own", READ, STATUS, ("create",)),
    "ipblocks": of("own", READ, STATUS, ("create", "delete")),
    "workloads": of("own", READ, STATUS, WRITE),
    "ippools": of("all", READ, ("get/status",)),
    "ipreservations": of("all", READ, ("get/status",)),
    "addressleases": of("all", READ, ("get/status",)),
    "bgppeers": of("all", READ, ("get/status",)),
    "bgpconfigurations": of("all", READ, ("get/status",)),
    "roles": {},
    "tiers": of("all", READ, ("get/status",)),
    "networkpolicies": of("all", READ, ("get/status",)),
    "networksets": {},
    "hostendpoints": of("own", READ, ("get/status",)),
    "bgpfilters": {},
    "virtualips": {},
}
BLUE_ROWS: dict[str, Rights] = {
    "workloads": of("own", READ, WRITE, ("get/status",)),
    "ippools": of("own", READ, WRITE, ("get/status",)),
    "roles": of("own", READ, ("get/status",)),
}


def expected(role: str, plural: str, verb: str) -> str:
    if role == "admin":
        return "all"
    if role in ("operator", "viewer"):
        reads = verb in (*READ, "get/status")
        return "all" if reads or (role == "operator" and plural != "roles") else ""
    rows = {"node": NODE_ROWS, "blue": BLUE_ROWS}.get(role, {})
    return rows.get(plural, {}).get(verb, "")


SOMEBODY = ("admin", "operator", "viewer", "node", "bootstrap", "blue")
SEEING = ("admin", "operator", "viewer", "node", "blue")  # who may list anything
EVENT = "/api/v1/namespaces/default/events/{name}"
REVIEWS = (*access.REVIEWS.values(), access.BEFORE)
OTHERS: dict[tuple[str, str], dict[str, str]] = {
    ("POST", f"{BASE}/nodes/{{name}}/bootstrap"): {"admin": "all", "operator": "all"},
    ("POST", f"{BASE}/nodes/{{name}}/certificate"): {
        "admin": "all", "node": "own", "bootstrap": "own",
    },
    ("POST", f"{BASE}/nodes/{{name}}/heartbeat"): {"admin": "all", "node": "own"},
    ("GET", f"{BASE}/nodes/{{name}}/way"): dict.fromkeys(("admin", "operator", "viewer"), "all"),
    ("POST", f"{BASE}/nodes/{{name}}/answer"): {"admin": "all", "node": "own"},
    ("POST", f"{BASE}/nodes/{{name}}/credentials"): {"admin": "all"},
    ("DELETE", f"{BASE}/nodes/{{name}}/credentials"): {"admin": "all"},
    ("GET", f"{BASE}/users"): {"admin": "all"},
    ("POST", f"{BASE}/users/{{name}}/credentials"): {"admin": "all"},
    ("DELETE", f"{BASE}/users/{{name}}/credentials"): {"admin": "all"},
    ("POST", f"{BASE}/users/{{name}}/certificate"): {"admin": "all"},
    **{("POST", path): dict.fromkeys(SOMEBODY, "all") for path in REVIEWS},
    ("GET", "/api/v1/events"): dict.fromkeys(SEEING, "all"),
    ("GET", "/api/v1/namespaces/{name}/events"): dict.fromkeys(SEEING, "all"),
    ("GET", EVENT): {**dict.fromkeys(("admin", "operator", "viewer"), "all"), "node": "own"},
    ("POST", f"{BASE}/selections"): dict.fromkeys(("admin", "operator", "viewer", "node"), "all"),
    ("GET", "/metrics"): {"admin": "all", "operator": "all", "viewer": "all"},
}  # fmt: skip
# what who may ask is told who asks for nothing
SAYING_NOTHING = {f"{BASE}/nodes/{{name}}/way": (422,), f"{BASE}/nodes/{{name}}/answer": (400,)}
OPEN = {
    "/healthz", "/livez", "/readyz", "/ca.crt", "/version", "/api", "/apis", "/apis/routed.dev",
    BASE, "/openapi/v2", "/openapi/v3", f"/openapi/v3{BASE}", "/openapi.json",
    "/api/v1", "/openapi/v3/api/v1",
    "/docs", "/docs/oauth2-redirect", "/redoc", "/{rest:path}",
    "/version/", "/api/", "/api/v1/", "/apis/", "/apis/routed.dev/", f"{BASE}/",
}  # fmt: skip

NAMES = {
    "nodes": ("h1", "h2"),
    "ipblocks": ("10-65-0-0-26", "10-65-0-64-26"),
    "workloads": ("a.h1", "a.h2"),
    "bgpconfigurations": ("default", "none"),  # there is but one
}
SPECS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nodes": ({}, {}),
    "ipblocks": ({"node": "h1", "address": "10.65.0.1"}, {"node": "h2", "address": "10.65.0.65"}),
    "workloads": ({"node": "h1", "origin": "Node"}, {"node": "h2", "origin": "Node"}),
    "ippools": ({"cidr": "10.66.0.0/24"}, {"cidr": "10.67.0.0/24"}),
    "ipreservations": (
        {"reservedCIDRs": ["10.65.0.240/30"]}, {"reservedCIDRs": ["10.65.0.244/30"]},
    ),
    "addressleases": ({"pool": "fixed"}, {"address": "10.69.0.7"}),
    "bgppeers": (
        {"peerIP": "192.0.2.1", "asNumber": 65001}, {"peerIP": "192.0.2.2", "asNumber": 65002},
    ),
    "bgpconfigurations": ({}, {}),
    "tiers": ({"order": 1}, {"order": 2}),
    "networkpolicies": ({"order": 1}, {"order": 2}),
    "networksets": ({}, {"nets": ["192.0.2.0/24"]}),
    "hostendpoints": (
        {"node": "h1", "interfaceName": "*"}, {"node": "h2", "interfaceName": "up0"},
    ),
    "bgpfilters": ({"importV4": [{"action": "Reject"}]}, {}),
    "virtualips": (
        {"addresses": ["10.63.0.1"], "selector": "has(a)"},
        {"addresses": ["10.63.0.2"], "selector": "has(a)"},
    ),
    "roles": tuple(  # type: ignore[dict-item]
        {"rules": [{"kinds": ["Node"], "verbs": [verb]}]} for verb in ("get", "list")
    ),
}  # fmt: skip
MERGE = {"content-type": "application/merge-patch+json"}


def names(plural: str) -> tuple[str, str]:
    return NAMES.get(plural, ("own", "other"))


def wanted(plural: str, which: int, *, labels: bool = True) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": names(plural)[which]}
    if labels:
        metadata["labels"] = {"team": ("blue", "red")[which]}
    return {"metadata": metadata, "spec": SPECS[plural][which]}


class World:
    """The service, and somebody in every role."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.admin = service.http()
        self._clients: dict[str, httpx.Client] = {"admin": self.admin}
        for name, rule in {
            "blue": {
                "kinds": ["Workload", "IPPool"], "verbs": ["*"],
                "labelSelector": "team == 'blue'",
            },
        }.items():  # fmt: skip
            rules = [rule, {**rule, "kinds": ["Role"]}]
            body = {"metadata": {"name": name}, "spec": {"rules": rules}}
            assert self.admin.post("/roles", json=body).status_code == 201
        for which in (0, 1):
            self.ensure("nodes", which)
        for name, spec in {
            "base": {"cidr": "10.65.0.0/24"},
            "anycast": {"cidr": "10.63.0.0/24", "allocation": "Anycast"},
            "fixed": {"cidr": "10.69.0.0/28", "allocation": "Fixed"},
        }.items():
            pool = {"metadata": {"name": name}, "spec": spec}
            assert self.admin.post("/ippools", json=pool).status_code == 201
        for user in ("operator", "viewer", "blue"):
            self._clients[user] = service.http(self.user(user, user))
        self._clients["nobody"] = service.http(token="")
        self._clients["revoked"] = service.http(self.user("revoked", "admin"))
        assert self.admin.delete("/users/revoked/credentials").status_code == 200

    def user(self, name: str, role: str) -> Access:
        made = self.admin.post(f"/users/{name}/credentials", json={"role": role})
        assert made.status_code == 201, made.text
        path = self.service.directory / f"{name}.user"
        path.write_text(made.text)
        return kubeconfig.read(path)

    def invitation(self) -> bootstrap.Invitation:
        return bootstrap.parse(self.admin.post("/nodes/h1/bootstrap").json()["token"])

    def client(self, role: str) -> httpx.Client:
        """A client of that role; node and bootstrap are h1's, and made anew where they ended."""
        if role == "bootstrap":
            self._replace(role, self.service.http(token=self.invitation().secret))
        elif role == "node":
            known = self._clients.get(role)
            if known is None or known.get("/ippools").status_code == 401:
                access = asyncio.run(join(self.invitation(), "h1"))
                self._replace(role, self.service.http(access))
        return self._clients[role]

    def _replace(self, role: str, client: httpx.Client) -> None:
        if role in self._clients:
            self._clients[role].close()
        self._clients[role] = client

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def ensure(self, plural: str, which: int) -> dict[str, Any]:
        """The object, made by the administrator where it is missing."""
        found = self.admin.get(f"/{plural}/{names(plural)[which]}")
        if found.status_code == 404:
            found = self.admin.post(f"/{plural}", json=wanted(plural, which))
        return found.json()  # type: ignore[no-any-return]

    def remove(self, plural: str, which: int) -> None:
        name = names(plural)[which]
        if plural == "nodes":
            owned = self.admin.get("/ipblocks", params={"fieldSelector": f"spec.node={name}"})
            for block in owned.json()["items"]:
                self._force(block["metadata"]["name"])
        elif plural == "ipblocks":
            self._force(name)
        self.admin.delete(f"/{plural}/{name}")

    def _force(self, block: str) -> None:
        """As an operator who states that the block's owner is off."""
        said = {"metadata": {"annotations": {"routed.dev/force-release": "it is off"}}}
        path = f"/ipblocks/{block}"
        if self.admin.patch(path, content=json.dumps(said), headers=MERGE).status_code == 200:
            self.admin.delete(path)


@pytest.fixture(scope="module")
def world(service: Service) -> Iterator[World]:
    found = World(service)
    yield found
    found.close()


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """(method, path) of everything that the service serves."""
    directory = tmp_path_factory.mktemp("routes")

    async def make() -> list[tuple[str, str]]:
        store = SqliteStore(directory / "s.db")
        made = ca.ensure(directory, ["localhost"])
        app = application(store, authority=Authority(*ca.authority(made), 60))
        await store.close()
        found = []
        for route in app.routes:
            assert isinstance(route, Route | APIRoute), route
            found += [(method, route.path) for method in route.methods or ()]
        return found

    return asyncio.run(make())


def verbs_of(method: str, path: str) -> tuple[str, list[str]]:
    """The kind of a route, and its verbs; nothing if it is of no kind."""
    plural, _, rest = path.removeprefix(f"{BASE}/").partition("/")
    if plural not in KINDS:
        return "", []
    if method == "GET" and not rest:
        return plural, ["list", "watch"]
    if method == "DELETE" and not rest:
        return plural, ["deletecollection"]
    verb = {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(method, "")
    found = {
        "": "create" if method == "POST" else "",
        "{name}": verb,
        "{name}/status": f"{verb}/status" if verb != "delete" else "",
    }.get(rest, "")
    return plural, [found] if found else []


def test_every_route_is_in_the_table(routes: list[tuple[str, str]]) -> None:
    listed = 0
    for method, path in routes:
        if path in OPEN or (method, path) in OTHERS:
            continue
        _, verbs = verbs_of(method, path)
        assert verbs, f"{method} {path} is not listed: who may use it?"
        listed += len(verbs)
    assert listed == len(KINDS) * (len(READ) + len(WRITE) + len(STATUS) + 1)
    assert set(NODE_ROWS) == set(SPECS) == set(KINDS), "what may a node do with it?"
    assert {path for _, path in routes} >= OPEN
    assert set(routes) >= set(OTHERS)


def ask(world: World, role: str, plural: str, verb: str, which: int) -> httpx.Response:
    """One request; the object is there before, unless it is to be created."""
    path = f"/{plural}/{names(plural)[which]}"
    base, _, status = verb.partition("/")
    tail = f"/{status}" if status else ""
    if base == "create":
        world.remove(plural, which)
        body = wanted(plural, which, labels=role != "node")
        return world.client(role).post(f"/{plural}", json=body)
    held = world.ensure(plural, which)
    client = world.client(role)
    if base == "get":
        return client.get(f"{path}{tail}")
    if base == "update":
        return client.put(f"{path}{tail}", json=held)
    if base == "patch":
        change = {"status": {"conditions": []}} if status else {"metadata": {"annotations": {}}}
        return client.patch(f"{path}{tail}", content=json.dumps(change), headers=MERGE)
    return client.delete(path)


def seen(world: World, role: str, plural: str, verb: str) -> set[str] | int:
    """The names that a list or watch shows, or the status code."""
    if verb == "list":
        answer = world.client(role).get(f"/{plural}")
        if answer.status_code != 200:
            return answer.status_code
        return {one["metadata"]["name"] for one in answer.json()["items"]}
    query = {"watch": "1", "sendInitialEvents": "true", "allowWatchBookmarks": "1"}
    found = set()
    with world.client(role).stream("GET", f"/{plural}", params=query) as answer:
        if answer.status_code != 200:
            return answer.status_code
        for line in answer.iter_lines():
            event = json.loads(line)
            if event["type"] == "BOOKMARK":
                break
            found.add(event["object"]["metadata"]["name"])
    return found


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("plural", KINDS)
def test_kinds(world: World, plural: str, role: str) -> None:
    refused = 401 if role in ("nobody", "revoked") else 403
    for verb in (*WRITE, *STATUS, "get"):
        right = expected(role, plural, verb)
        for which, ownership in enumerate(("own", "other")):
            answer = ask(world, role, plural, verb, which)
            said = f"{role} {verb} {plural} {ownership}: {answer.status_code} {answer.text[:200]}"
            if right not in ("all", ownership):
                assert answer.status_code == refused, said
            elif (plural, which) == ("bgpconfigurations", 1):
                assert answer.status_code in (400, 404, 422), said
            else:
                assert answer.status_code in (200, 201), said
    for which in (0, 1):
        world.ensure(plural, which)
    own, other = names(plural)
    for verb in ("list", "watch"):
        right, shown = expected(role, plural, verb), seen(world, role, plural, verb)
        if not right:
            assert shown == refused, (role, verb)
            continue
        assert isinstance(shown, set), (role, verb, shown)
        assert own in shown, (role, verb)
        assert (other in shown) is (right == "all" and other != "none"), (role, verb, shown)
        if right == "own":
            assert shown == {own}, (role, verb)
    if plural not in ("nodes",):
        for which in (0, 1):
            world.remove(plural, which)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("plural", KINDS)
def test_collections(world: World, plural: str, role: str) -> None:
    """Of many at once only those go that could go one by one."""
    if plural in ("nodes", "bgpconfigurations"):
        return  # what all else is for; of the latter there is but one
    right = expected(role, plural, "delete")
    for which in (0, 1):
        world.remove(plural, which)
        world.ensure(plural, which)
    selected = {"labelSelector": "team"} if plural != "ipblocks" else {}
    answer = world.client(role).delete(f"/{plural}", params=selected)
    refused = 401 if role in ("nobody", "revoked") else 403
    assert answer.status_code == (200 if right else refused), answer.text
    left = {one["metadata"]["name"]: one for one in world.admin.get(f"/{plural}").json()["items"]}
    gone = [
        name not in left or "deletionTimestamp" in left[name]["metadata"] for name in names(plural)
    ]
    assert gone == {"": [False, False], "own": [True, False], "all": [True, True]}[right]
    for which in (0, 1):
        world.remove(plural, which)


@pytest.mark.parametrize(("method", "path"), OTHERS)
def test_other_routes(world: World, method: str, path: str) -> None:
    root = str(world.admin.base_url).removesuffix("/").removesuffix(BASE)
    _, request = certificates.key_and_request()
    for role in ROLES:
        for name, ownership in (("h1", "own"), ("h2", "other")):
            if "{name}" not in path and ownership == "other":
                continue
            client, right = world.client(role), OTHERS[method, path].get(role, "")
            if method == "DELETE" and right:
                world.admin.post(path.format(name=name), json={"role": "viewer"})
            url = root + path.format(name=f"{name}.node-created" if path == EVENT else name)
            body = {"request": request, "role": "viewer"}
            if path.endswith("bootstrap"):
                body = {}
            ends = {"timeoutSeconds": "1"} if path.endswith("/selections") else {}
            body = body if method == "POST" else None  # type: ignore[assignment]
            answer = client.request(method, url, json=body, params=ends)
            said = f"{role} {method} {path} {ownership}: {answer.status_code} {answer.text[:200]}"
            if right in ("all", ownership):
                assert answer.status_code in SAYING_NOTHING.get(path, (200, 201)), said
            else:
                assert answer.status_code == (401 if role in ("nobody", "revoked") else 403), said


def test_a_node_does_not_choose_its_pools_and_peers(world: World) -> None:
    node = world.client("node")
    for change in (
        {"metadata": {"name": "h1", "labels": {"rack": "r1"}}},
        {"metadata": {"name": "h1"}, "spec": {"asNumber": 65001}},
        {"metadata": {"name": "h1"}, "spec": {"unschedulable": True}},
        {"metadata": {"name": "h3"}},
    ):
        assert node.post("/nodes", json=change).status_code == 403, change
    held = node.get("/nodes/h1").json()
    held["spec"]["unschedulable"] = True
    held["metadata"]["labels"] = {"rack": "r2"}
    assert node.put("/nodes/h1", json=held).status_code == 403
    assert node.put("/nodes/h1/status", json=held).status_code == 200
    after = node.get("/nodes/h1").json()
    assert (after["spec"], after["metadata"]["labels"].get("rack")) == (
        {**held["spec"], "unschedulable": False}, None,
    )  # fmt: skip
    declared = {"metadata": {"name": "mine"}, "spec": {"node": "h1", "origin": "API"}}
    assert node.post("/workloads", json=declared).status_code == 403
    assert world.admin.post("/workloads", json=declared).status_code == 201
    assert node.delete("/workloads/mine").status_code == 403
    assert world.admin.delete("/workloads/mine").status_code == 200


def test_selectors_never_show_a_node_more_than_its_own(world: World) -> None:
    for which in (0, 1):
        world.ensure("workloads", which)
    node = world.client("node")
    for query in ("spec.node=h2", "metadata.name=a.h2", "spec.node!=h1", "spec.origin=Node"):
        items = node.get("/workloads", params={"fieldSelector": query}).json()["items"]
        assert "a.h2" not in [one["metadata"]["name"] for one in items], query
    for query in ("metadata.name=h2", "metadata.name!=h1"):
        assert node.get("/nodes", params={"fieldSelector": query}).json()["items"] == []


def test_what_is_blue_stays_blue_and_nothing_becomes_it(world: World) -> None:
    for which in (0, 1):
        world.ensure("ippools", which)
    blue = world.client("blue")

    def label(pool: str, value: str | None) -> int:
        body = json.dumps({"metadata": {"labels": {"team": value}}})
        return blue.patch(f"/ippools/{pool}", content=body, headers=MERGE).status_code

    assert [label("own", value) for value in ("red", None)] == [403, 403]
    assert label("other", "blue") == 403
    held = blue.get("/ippools/own").json()
    held["metadata"]["labels"]["team"] = "red"
    assert blue.put("/ippools/own", json=held).status_code == 403
    held["metadata"]["labels"] = {"team": "blue", "more": "too"}
    assert blue.put("/ippools/own", json=held).status_code == 200
    body = {"metadata": {"name": "plain"}, "spec": {"cidr": "10.68.0.0/24"}}
    assert blue.post("/ippools", json=body).status_code == 403
    body["metadata"]["labels"] = {"team": "blue"}  # type: ignore[index]
    assert blue.post("/ippools", json=body).status_code == 201
    assert blue.delete("/ippools/plain").status_code == 200


def test_a_role_that_changes_or_goes_ends_what_rested_on_it(world: World) -> None:
    rule = {"kinds": ["IPPool"], "verbs": ["get", "watch"]}
    role = {"metadata": {"name": "short"}, "spec": {"rules": [rule]}}
    role = world.admin.post("/roles", json=role).json()
    with world.service.http(world.user("shorty", "short")) as api:
        assert api.get("/ippools").status_code == 403
        query = {"watch": "1", "allowWatchBookmarks": "1"}
        with api.stream("GET", "/ippools", params=query) as answer:
            lines = answer.iter_lines()
            while "BOOKMARK" not in next(lines):
                pass
            role["spec"]["rules"][0]["verbs"] = ["list"]
            assert world.admin.put("/roles/short", json=role).status_code == 200
            assert list(lines) == []
        assert api.get("/ippools/base").status_code == 403
        assert api.get("/ippools").status_code == 200
        assert world.admin.delete("/roles/short").status_code == 200
        assert api.get("/ippools").status_code == 403
    made = world.admin.post("/users/x/credentials", json={"role": "short"})
    assert made.status_code == 422
    for wrong in ("node", "bootstrap", "", None, 7, ["admin"]):
        made = world.admin.post("/users/x/credentials", json={"role": wrong})
        assert made.status_code == 422, wrong


@pytest.mark.parametrize("name", ["admin", "operator", "viewer", "node", "bootstrap"])
def test_built_in_roles_are_not_made_anew(world: World, name: str) -> None:
    body = {"metadata": {"name": name}, "spec": {"rules": [{"kinds": ["*"], "verbs": ["*"]}]}}
    answer = world.admin.post("/roles", json=body)
    assert answer.status_code == 422
    assert "is built in" in answer.json()["message"]


def test_everything_for_everybody_is_still_no_administrator(world: World) -> None:
    body = {"metadata": {"name": "most"}, "spec": {"rules": [{"kinds": ["*"], "verbs": ["*"]}]}}
    assert world.admin.post("/roles", json=body).status_code == 201
    with world.service.http(world.user("most", "most")) as api:
        assert api.get("/roles/most").status_code == 200
        assert api.delete("/roles/most").status_code == 403
        assert api.put("/nodes/h1/status", json=api.get("/nodes/h1").json()).status_code == 403
        assert api.post("/nodes/h1/bootstrap").status_code == 403
        assert api.get("/metrics").status_code in (403, 404)


def test_mistakes_in_a_role_are_told_with_their_place(world: World) -> None:
    rules = [{"kinds": ["Frog"], "verbs": ["get"]}, {"kinds": ["Node"], "verbs": ["eat"]}]
    rules += [{"kinds": ["Node"], "verbs": ["get"], "labelSelector": "a =="}, {"verbs": ["get"]}]
    body = {"metadata": {"name": "wrong"}, "spec": {"rules": rules}}
    answer = world.admin.post("/roles", json=body).json()
    fields = {cause["field"] for cause in answer["details"]["causes"]}
    assert fields == {
        "spec.rules[0].kinds[0]", "spec.rules[1].verbs[0]", "spec.rules[2].labelSelector",
        "spec.rules[3].kinds",
    }  # fmt: skip

"""How often somebody may ask: the buckets alone, and a real service with small ones."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.service import Service, running_service

from api.auth import bootstrap, kubeconfig
from api.client import Client, join
from api.resources import Node
from api.service.rate import Buckets, Rate
from api.service.throttle import network_of

PER_SECOND, BURST = 5, 20
PATH = "/apis/routed.dev/v1/nodes"

pauses = st.lists(st.floats(0, 3), min_size=1, max_size=200)


@given(st.integers(1, 50), st.integers(1, 30), pauses, st.floats(0, 1e7))
def test_in_no_time_are_there_more_than_a_burst_and_what_the_rate_gives(
    per_second: int, burst: int, waits: list[float], now: float
) -> None:
    buckets, passed = Buckets(Rate(per_second, burst)), []
    for pause in waits:
        now += pause
        wait = buckets.take("a", now)
        assert wait >= 0
        if not wait:
            passed.append(now)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            within = (passed[last] - passed[first]) * per_second
            assert last - first + 1 <= burst + within + 0.01


@given(st.integers(1, 50), st.integers(1, 30), pauses, st.floats(0, 1e7))
def test_who_waits_as_long_as_he_is_told_is_served(
    per_second: int, burst: int, waits: list[float], now: float
) -> None:
    buckets = Buckets(Rate(per_second, burst))
    for pause in waits:
        now += pause
        if wait := buckets.take("a", now):
            assert wait <= 1 / per_second + 1e-6, "one token is enough"
            now += wait + 1e-6
            assert buckets.take("a", now) == 0


def test_a_burst_is_whole_and_comes_back_and_is_nobody_elses() -> None:
    buckets = Buckets(Rate(2, 5))
    assert [buckets.take("a", 1e6) == 0 for _ in range(6)] == [*[True] * 5, False]
    assert buckets.take("b", 1e6) == 0
    assert [buckets.take("a", 1e6 + 2.5) == 0 for _ in range(6)] == [*[True] * 5, False]


def test_those_who_are_remembered_are_bounded_and_the_quiet_are_forgotten() -> None:
    buckets = Buckets(Rate(1, 1), most=100)
    assert buckets.take("busy", 0) == 0
    for number in range(10_000):
        assert buckets.take(f"a{number}", 0) == 0
        assert buckets.take("busy", 0) > 0, "as long as it asks it is known"
        assert len(buckets) <= 100
    assert buckets.take("a9999", 0) > 0
    assert buckets.take("a0", 0) == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:0:0:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::1", "", False),
    ],
)
def test_an_address_stands_for_what_its_user_can_choose(one: str, other: str, same: bool) -> None:
    assert (network_of(one) == network_of(other)) is same


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    rates = {"requestsPerSecond": PER_SECOND, "requestBurst": BURST}
    rates |= {"strangerRequestsPerSecond": PER_SECOND, "strangerRequestBurst": BURST}
    with running_service(tmp_path_factory.mktemp("small"), **rates) as found:
        yield found


def user(service: Service, name: str) -> httpx.Client:
    path = service.directory / f"{name}.user"
    with service.http() as admin:
        path.write_text(admin.post(f"/users/{name}/credentials", json={"role": "viewer"}).text)
    return service.http(path)


def until_refused(client: httpx.Client, url: str, code: int) -> tuple[int, httpx.Response]:
    """How many were answered with `code` before one was refused, and its refusal."""
    for number in range(100 * BURST):
        answer = client.get(url)
        if answer.status_code == 429:
            return number, answer
        assert answer.status_code == code, answer.text
    raise AssertionError("nothing is refused")


def refused(service: Service, by: str) -> float:
    with service.http() as admin:
        text = admin.get(f"{str(admin.base_url).partition('/apis')[0]}/metrics").text
    name = f'routed_api_throttled_total{{by="{by}"}} '
    return sum(float(line.removeprefix(name)) for line in text.splitlines() if name in line)


def test_one_who_asks_too_often_is_refused_and_nobody_else(small: Service) -> None:
    before = refused(small, "identity")
    with user(small, "eager") as eager, user(small, "calm") as calm, small.http() as admin:
        began = time.monotonic()
        served, refusal = until_refused(eager, "/nodes", 200)
        assert BURST <= served <= BURST + PER_SECOND * (time.monotonic() - began) + 1
        assert refusal.headers["retry-after"] == "1"
        assert refusal.json()["reason"] == "TooManyRequests"
        assert refusal.json()["code"] == 429
        assert "eager asks too often" in refusal.json()["message"]
        assert eager.get("/bgppeers").status_code == 429, "whatever it asks for"
        assert calm.get("/nodes").status_code == 200
        codes = [admin.get("/nodes").status_code for _ in range(2 * BURST)]
        assert codes == [200] * 2 * BURST, "an administrator may more"
    assert refused(small, "identity") >= before + 2


def test_an_open_watch_goes_on_while_its_reader_is_refused(small: Service) -> None:
    with user(small, "watches") as viewer, small.http() as admin:
        query = {"watch": "1", "allowWatchBookmarks": "1"}
        with viewer.stream("GET", "/nodes", params=query) as answer:
            lines = answer.iter_lines()
            while "BOOKMARK" not in next(lines):
                pass
            with user_of(small, "watches") as other:
                until_refused(other, "/nodes", 200)
            assert admin.post("/nodes", json={"metadata": {"name": "seen"}}).status_code == 201
            told = next(line for line in lines if "BOOKMARK" not in line)
            assert json.loads(told)["object"]["metadata"]["name"] == "seen"
        assert admin.delete("/nodes/seen").status_code == 200


def user_of(service: Service, name: str) -> httpx.Client:
    """The same user once more."""
    return service.http(service.directory / f"{name}.user")


def test_our_client_waits_and_is_served(small: Service) -> None:
    with user(small, "patient") as one:
        until_refused(one, "/nodes", 200)

    async def asked() -> list[Node]:
        client = Client.from_kubeconfig(small.directory / "patient.user")
        try:
            return await client.list(Node)
        finally:
            await client.close()

    assert asyncio.run(asked()) == []


def test_strangers_are_counted_by_their_address_and_the_known_there_are_not(
    small: Service,
) -> None:
    server = kubeconfig.read(small.admin).server
    with small.http(token="rt-none") as nobody, user(small, "known") as known:
        served, refusal = until_refused(nobody, "/nodes", 401)
        assert served >= BURST - PER_SECOND
        assert refusal.headers["retry-after"] == "1"
        assert "127.0.0.1 without valid credentials" in refusal.json()["message"]
        for path in ("/apis", "/ca.crt", "/openapi/v2", "/no/such/path"):
            until_refused(nobody, f"{server}{path}", 404 if "such" in path else 200)
        for path in ("/healthz", "/livez", "/readyz"):
            assert [nobody.get(f"{server}{path}").status_code for _ in range(BURST)] == (
                [200] * BURST
            )
        assert known.get("/nodes").status_code == 200
    assert refused(small, "address") >= 5


def test_a_host_that_joins_among_many_waits_for_its_turn(small: Service) -> None:
    with small.http() as admin, small.http(token="") as nobody:
        token = admin.post("/nodes/late/bootstrap").json()["token"]
        until_refused(nobody, f"{kubeconfig.read(small.admin).server}/ca.crt", 200)
        before = refused(small, "address")
        access = asyncio.run(join(bootstrap.parse(token), "late"))
        assert refused(small, "address") > before, "it was refused first"
    assert access.certificate

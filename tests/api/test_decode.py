"""Bad input: one clear error that names object and field, all mistakes at once."""

from __future__ import annotations

from typing import Any

import pytest

from api.resources.decode import decode
from api.resources.errors import BadRequest, Invalid
from api.resources.registry import KINDS


def fields(plural: str, name: str = "x", **spec: Any) -> dict[str, str]:
    with pytest.raises(Invalid) as caught:
        decode(KINDS[plural], {"metadata": {"name": name}, "spec": spec})
    assert name in str(caught.value)
    return {cause.field: cause.message for cause in caught.value.causes}


@pytest.mark.parametrize(
    ("cidr", "says"),
    [
        ("10.65.0.0", "no prefix length"),
        ("10.65.0.0/33", "not an IPv4 or IPv6 prefix"),
        ("10.65.0.0/x", "must be a number"),
        ("10.65.0.1/16", "10.65.0.0/16 would be right"),
        ("ten/8", "not an IPv4"),
        (7, "not int"),
    ],
)
def test_a_bad_cidr(cidr: Any, says: str) -> None:
    assert says in fields("ippools", cidr=cidr)["spec.cidr"]


@pytest.mark.parametrize(
    "cidr",
    [
        "0.0.0.0/8",
        "127.0.0.0/16",
        "169.254.0.0/20",
        "224.0.0.0/8",
        "240.0.0.0/4",
        "0.0.0.0/0",
        "::/64",
        "fe80::/64",
        "ff02::/64",
        "::/0",
    ],
)
def test_reserved_ranges_are_no_pools(cidr: str) -> None:
    assert "reserved range" in fields("ippools", cidr=cidr)["spec.cidr"]


def test_sizes_of_blocks() -> None:
    assert "smaller than one block" in fields("ippools", cidr="10.0.0.0/28")["spec.blockSize"]
    assert "20 to 32" in fields("ippools", cidr="10.0.0.0/8", blockSize=16)["spec.blockSize"]
    fixed = fields("ippools", cidr="10.0.0.0/24", blockSize=26, allocation="Fixed")
    assert "must be 32" in fixed["spec.blockSize"]


def test_an_unknown_field_is_a_decoding_error() -> None:
    document = {"metadata": {"name": "x"}, "spec": {"cidr": "10.0.0.0/16", "blocksize": 26}}
    with pytest.raises(BadRequest, match=r'strict decoding error.*"spec\.blocksize"'):
        decode(KINDS["ippools"], document)


def test_all_mistakes_at_once_with_paths_as_users_write_them() -> None:
    found = fields(
        "workloads",
        node="H1",
        ifName="abcdefghijklmnop",
        addresses=["10.0.0.1", "bad"],
        ports=[{"port": 80}, {"port": 0}],
        mode="bridge",
    )
    assert set(found) == {
        "spec.node",
        "spec.ifName",
        "spec.addresses[1]",
        "spec.ports[1].port",
        "spec.mode",
    }
    assert "16 characters" in found["spec.ifName"]


@pytest.mark.parametrize(
    ("name", "origin", "good"),
    [
        ("web", "API", True),
        ("web.h1", "API", False),
        ("web.h1", "Node", True),
        ("web.h2", "Node", False),
        ("web", "Node", False),
    ],
)
def test_names_of_the_two_origins_never_collide(name: str, origin: str, good: bool) -> None:
    document = {"metadata": {"name": name}, "spec": {"node": "h1", "origin": origin}}
    if good:
        assert decode(KINDS["workloads"], document).metadata.name == name
    else:
        with pytest.raises(Invalid) as caught:
            decode(KINDS["workloads"], document)
        assert caught.value.causes[0].field == "metadata.name"


@pytest.mark.parametrize("name", ["", "A", "-a", "a_b", "a" * 64, "a..b", 3, None])
def test_a_name_that_is_no_dns_name(name: Any) -> None:
    with pytest.raises(Invalid) as caught:
        decode(KINDS["nodes"], {"metadata": {"name": name}, "spec": {}})
    assert caught.value.causes[0].field == "metadata.name"


def test_peers() -> None:
    bad = fields("bgppeers", peerIP="224.0.0.1", asNumber=1, holdTime=2, sourceAddress="fd00::1")
    assert set(bad) == {"spec.peerIP", "spec.holdTime", "spec.sourceAddress"}
    assert (
        "third"
        in fields("bgppeers", peerIP="192.0.2.1", asNumber=1, keepaliveTime=4)["spec.keepaliveTime"]
    )
    selector = fields("bgppeers", peerIP="192.0.2.1", asNumber=1, nodeSelector="rack =")
    assert "column 6" in selector["spec.nodeSelector"]
    community = fields("bgpconfigurations", "default", communities=["1:2", "graceful-shutdown"])
    assert set(community) == {"spec.communities[1]"}


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("blockSize", "26", "must be a whole number, not '26'"),
        ("blockSize", True, "must be a whole number, not True"),
        ("blockSize", 26.0, "must be a whole number, not 26.0"),
        ("disabled", "yes", "must be true or false, not 'yes'"),
        ("disabled", 1, "must be true or false, not 1"),
    ],
)
def test_a_wrong_type_is_told_and_never_taken_for_another(
    field: str, value: object, says: str
) -> None:
    document = {"metadata": {"name": "p"}, "spec": {"cidr": "10.0.0.0/16", field: value}}
    with pytest.raises(Invalid) as caught:
        decode(KINDS["ippools"], document)
    assert [(c.field, c.message) for c in caught.value.causes] == [(f"spec.{field}", says)]


def test_unknown_fields_are_left_out_and_named_where_that_is_asked_for() -> None:
    document = {
        "metadata": {"name": "main", "colour": "red"},
        "spec": {"cidr": "10.0.0.0/24", "size": 3},
        "extra": {},
    }
    told: list[str] = []
    held = decode(KINDS["ippools"], document, told)
    assert held.metadata.name == "main"
    assert sorted(told) == [
        'unknown field "extra"', 'unknown field "metadata.colour"', 'unknown field "spec.size"',
    ]  # fmt: skip
    assert "size" in document["spec"], "what was given stays as it is"
    peer = {"metadata": {"name": "p"}, "spec": {"peerIP": "x", "asNumber": 1, "odd": 1}}
    with pytest.raises(Invalid, match=r"spec\.peerIP"):
        decode(KINDS["bgppeers"], peer, told)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ({"rack": "r1", "example.com/rack": "", "a_b.C-d": "x" * 63}, ""),
        ({"": "x"}, "'' is no key: its name has 0 characters"),
        ({"-rack": "x"}, "'-rack' is no key: its name may have letters"),
        ({"a" * 64: "x"}, "has 64 characters; 1 to 63"),
        ({"Example.com/rack": "x"}, "is no key: before its '/', 'Example' is not a DNS label"),
        ({"a/b/c": "x"}, "is no key: before its '/'"),
        ({"/rack": "x"}, "is no key: before its '/'"),
        ({"rack": "r 1"}, "'r 1' is no label value: it may have letters"),
        ({"rack": "r1-"}, "'r1-' is no label value"),
        ({"rack": "r1\n"}, "is no label value"),
        ({"rack": "x" * 64}, "has 64 characters; 1 to 63"),
    ],
)
def test_labels_are_written_as_kubernetes_has_them(labels: dict[str, str], says: str) -> None:
    document = {"metadata": {"name": "n", "labels": labels}, "spec": {}}
    if not says:
        assert decode(KINDS["nodes"], document).metadata.labels == labels
        return
    with pytest.raises(Invalid) as caught:
        decode(KINDS["nodes"], document)
    (cause,) = caught.value.causes
    assert cause.field == "metadata.labels"
    assert says in cause.message


def test_every_wrong_label_is_named() -> None:
    labels = {"-a": "x", "b": "-"}
    with pytest.raises(Invalid) as caught:
        decode(KINDS["nodes"], {"metadata": {"name": "n", "labels": labels}, "spec": {}})
    assert "'-a'" in str(caught.value)
    assert "'-'" in str(caught.value)


def test_annotations_have_keys_of_labels_and_a_bound() -> None:
    def decoded(annotations: dict[str, str]) -> None:
        document = {"metadata": {"name": "n", "annotations": annotations}, "spec": {}}
        decode(KINDS["nodes"], document)

    decoded({"example.com/note": "anything: goes\n" * 1000})
    with pytest.raises(Invalid, match=r"metadata\.annotations: 'a b' is no key"):
        decoded({"a b": "x"})
    with pytest.raises(Invalid, match="262146 bytes; 262144 are possible together"):
        decoded({"n": "x" * 131_072, "m": "x" * 131_072})

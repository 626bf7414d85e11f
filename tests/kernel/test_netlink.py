"""How a dump ends, is interrupted and begins again: answers that no kernel gives when asked to."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from routed.kernel.netlink import (
    NLM_F_DUMP_INTR,
    NLMSG_DONE,
    NLMSG_ERROR,
    Netlink,
    message,
    walk,
)

ROUTE = 24


class Answers:
    """A socket whose peer gives `buffers`, made for the sequence number of the last request."""

    def __init__(self, *buffers: Any) -> None:
        self.buffers = list(buffers)
        self.sent: list[int] = []

    def send(self, data: bytes) -> None:
        self.sent.append(struct.unpack_from("=I", data, 8)[0])

    def recv(self, _: int) -> bytes:
        found: bytes = self.buffers.pop(0)(self.sent[-1])
        return found

    def close(self) -> None:
        pass


def said(*payloads: bytes, kind: int = ROUTE, flags: int = 2, late: int = 0) -> Any:
    """A buffer of messages; `late`: of the request that many before."""
    return lambda sequence: b"".join(
        struct.pack("=IHHII", 16 + len(one), kind, flags, sequence - late, 0) + one
        for one in payloads
    )


def both(first: Any, second: Any) -> Any:
    return lambda sequence: first(sequence) + second(sequence)


DONE = said(bytes(4), kind=NLMSG_DONE)


def dumped(monkeypatch: pytest.MonkeyPatch, *buffers: Any) -> tuple[list[bytes], Answers]:
    answers = Answers(*buffers)
    netlink = Netlink()
    netlink.close()
    monkeypatch.setattr(netlink, "_socket", answers)
    found = netlink.dump(message(26, 0, b""))
    assert not answers.buffers, "read to its end, and no further"
    return found, answers


def test_a_dump_ends_in_a_buffer_of_its_own_or_at_the_end_of_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for ending in ([said(b"bbbb"), DONE], [both(said(b"bbbb"), DONE)]):
        found, answers = dumped(monkeypatch, said(b"aaaa", b"AAAA"), *ending)
        assert found == [b"aaaa", b"AAAA", b"bbbb"]
        assert len(answers.sent) == 1


def test_an_empty_dump(monkeypatch: pytest.MonkeyPatch) -> None:
    assert dumped(monkeypatch, DONE)[0] == []


def test_what_looks_like_the_end_inside_a_message_is_not_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def twin(sequence: int) -> bytes:
        inner: bytes = DONE(sequence)
        whole: bytes = said(b"aaaa" + inner)(sequence)
        return whole

    found, _ = dumped(monkeypatch, twin, DONE)
    assert len(found) == 1
    assert found[0].startswith(b"aaaa")


@pytest.mark.parametrize("where", ["in a buffer", "at the end"])
def test_an_interrupted_dump_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    marked = 2 | NLM_F_DUMP_INTR
    if where == "in a buffer":
        first = [said(b"aaaa"), said(b"bbbb", flags=marked), DONE]
    else:
        first = [said(b"aaaa"), said(bytes(4), kind=NLMSG_DONE, flags=marked)]
    found, answers = dumped(monkeypatch, *first, said(b"cccc"), DONE)
    assert found == [b"cccc"]
    assert len(answers.sent) == 2


def test_answers_to_an_earlier_request_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    late = said(b"late", late=1)
    assert dumped(monkeypatch, late, said(b"aaaa"), DONE)[0] == [b"aaaa"]


def test_a_refused_dump_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = said(struct.pack("=i", -95), kind=NLMSG_ERROR)
    with pytest.raises(OSError, match="cannot dump") as caught:
        dumped(monkeypatch, refused)
    assert caught.value.errno == 95


def test_messages_are_walked_by_their_length() -> None:
    data = said(b"abc\0", b"defgh\0\0\0")(7)
    assert [data[start:end] for *_, start, end in walk(data)] == [b"abc\0", b"defgh\0\0\0"]
    assert list(walk(data[:10])) == []
    assert list(walk(bytes(16))) == []

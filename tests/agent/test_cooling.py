"""The log of what cools: nothing forgotten, whatever was torn, and no longer than it must be."""

from __future__ import annotations

import errno
import os
import time
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from api.ipam.allocator import Block, Cooling
from api.resources import ObjectMeta, Workload
from api.resources.net import IPAddress
from api.resources.workload import Origin, WorkloadSpec, WorkloadStatus
from routed.agent import cooling as logs
from routed.agent.addresses import AddressBook
from routed.agent.cooling import SLACK, boot_of


def opened(path: Path) -> logs.CoolingLog:
    return logs.CoolingLog(path, b"this-boot")


def freed(number: int) -> tuple[IPAddress, Cooling]:
    return ip_address("10.65.0.0") + number, Cooling(f"w{number}.h1", float(number))


def test_a_new_log_is_no_log(tmp_path: Path) -> None:
    assert opened(tmp_path / "cooling.log").load() == ({}, False)


def test_what_an_earlier_boot_has_left_is_told(tmp_path: Path) -> None:
    log = opened(tmp_path / "cooling.log")
    log.rewrite(dict([freed(1)]))
    log.close()
    assert log.load() == (dict([freed(1)]), True)
    lines = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"another-boot\n" + b"".join(lines[1:]))
    assert opened(log.path).load() == (dict([freed(1)]), False)


def test_what_was_added_is_there_again(tmp_path: Path) -> None:
    log, cooling = opened(tmp_path / "cooling.log"), {}
    log.rewrite({})
    for number in range(3):
        address, since = freed(number)
        cooling[address] = since
        log.add([(address, since)], cooling)
    assert opened(log.path).load() == (cooling, True)
    assert log.path.stat().st_mode & 0o777 == 0o600
    log.close()


def test_a_torn_line_costs_only_itself(tmp_path: Path) -> None:
    log = opened(tmp_path / "cooling.log")
    log.rewrite(dict([freed(1), freed(2)]))
    log.close()
    log.path.write_bytes(log.path.read_bytes()[:-9])
    again = opened(log.path)
    held, _ = again.load()
    assert held == dict([freed(1)])
    again.add([freed(3)], dict([freed(1), freed(3)]))
    assert opened(log.path).load()[0] == dict([freed(1), freed(3)])
    again.close()


def test_what_a_full_disk_refused_is_written_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = opened(tmp_path / "cooling.log")
    log.rewrite({})

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            log.add([freed(1)], dict([freed(1)]))
    log.add([freed(2)], dict([freed(1), freed(2)]))
    assert opened(log.path).load()[0] == dict([freed(1), freed(2)])
    log.close()


def test_it_does_not_grow_for_ever(tmp_path: Path) -> None:
    log = opened(tmp_path / "cooling.log")
    log.rewrite({})
    for number in range(4 * SLACK):
        log.add([freed(number)], dict([freed(number)]))  # what was there before has cooled down
    assert len(log.path.read_bytes().splitlines()) <= SLACK + 4
    log.close()


def test_a_boot_has_its_own_word(tmp_path: Path) -> None:
    first = boot_of(tmp_path)
    assert boot_of(tmp_path) == first
    (tmp_path / "boot").unlink()
    assert boot_of(tmp_path) != first


@pytest.mark.parametrize("boot", ["the same", "another"])
def test_after_a_boot_it_cools_once_more_and_so_does_what_was_reported(
    tmp_path: Path, boot: str
) -> None:
    long_ago = time.monotonic() - 3600
    log = logs.CoolingLog(tmp_path / "cooling.log", b"the same")
    log.rewrite({ip_address("10.65.0.1"): Cooling("old.h1", long_ago)})
    log.close()
    status = WorkloadStatus(addresses=[ip_address("10.65.0.2")])
    spec = WorkloadSpec(node="h1", origin=Origin.NODE)
    report = Workload(metadata=ObjectMeta(name="web.h1"), spec=spec, status=status)
    book = AddressBook(logs.CoolingLog(log.path, boot.encode()), low_water=0)
    book.allocator.own([Block(ip_network("10.65.0.0/30"), "main", 60.0)])
    book.restore({}, None, {"web.h1": report})
    book.allocator.expire(time.monotonic())
    cooling = {str(address) for address in book.allocator.cooling}
    assert cooling == (set() if boot == "the same" else {"10.65.0.1", "10.65.0.2"})
    book.log.close()


def test_what_has_cooled_down_does_not_cool_again_after_a_boot(tmp_path: Path) -> None:
    path = tmp_path / "cooling.log"
    book = AddressBook(logs.CoolingLog(path, b"one"), low_water=0)
    book.allocator.own([Block(ip_network("10.65.0.0/30"), "main", 60.0)])
    now = time.monotonic()
    book.restore({}, None, {})
    for place, since in ((1, now - 3600), (2, now)):
        book.allocator.take(ip_address("10.65.0.0") + place, f"w{place}.h1", since)
        freed = book.allocator.release(f"w{place}.h1", since)
        book.log.add([(a, book.allocator.cooling[a]) for a in freed], book.allocator.cooling)
    book.tidy()
    book.log.close()
    found, same = logs.CoolingLog(path, b"two").load()
    assert not same
    assert [str(address) for address in found] == ["10.65.0.2"]

"""Command lines as kubectl's users write them."""

from __future__ import annotations

import shlex

import pytest

from routed.ctl.argv import normal

FLAGS = {"wait", "all", "overwrite", "insecure-skip-tls-verify", "server-side"}


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("get pools --context other", "--context other get pools"),
        ("get pools --context=other -o=json", "--context=other get pools -ojson"),
        ("get -n default pools -s https://h:1", "-n default -s https://h:1 get pools"),
        ("delete pool a --wait=false", "delete pool a --no-wait"),
        ("delete pool a --wait=true --all=false", "delete pool a --wait"),
        ("label pool a b=true --overwrite=false", "label pool a b=true --no-overwrite"),
        ("apply --server-side=true -f -", "apply --server-side -f -"),
        ("get --insecure-skip-tls-verify=true pools", "--insecure-skip-tls-verify get pools"),
        ("patch pool a -p={}", "patch pool a -p{}"),
        ("get pools -- --context other", "get pools -- --context other"),
        ("get pools --context", "--context get pools"),
        ("attach web --label all=true", "attach web --label all=true"),
    ],
)
def test_kubectls_habits_are_read(said: str, read: str) -> None:
    assert normal(shlex.split(said), FLAGS) == shlex.split(read)

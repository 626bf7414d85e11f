"""JSONPath templates, without a service; what kubectl says to the same is in test_as_kubectl."""

from __future__ import annotations

from typing import Any

import pytest

from api.resources.errors import ConfigError
from routed.ctl import jsonpath
from routed.ctl.output import Output

NODES: dict[str, Any] = {
    "items": [
        {
            "metadata": {"name": "a", "labels": {"routed.dev/rack": "r1"}},
            "spec": {"asNumber": 1, "addresses": ["192.0.2.1", "2001:db8::1"]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        },
        {
            "metadata": {"name": "b"},
            "spec": {"asNumber": 2, "unschedulable": True},
            "status": {"conditions": [{"type": "Ready", "status": "False"}]},
        },
    ]
}


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{.items[*].metadata.name}", "a b"),
        ("{$.items[0].metadata.name}", "a"),
        ("{.items[-1].metadata.name}", "b"),
        ("{.items[0:1].metadata.name}", "a"),
        ("{.items[::1].metadata.name}", "a b"),
        ("{.items[0]['metadata'].name}", "a"),
        ("{.items[*]['metadata','spec'].name}", "a b"),
        (r"{.items[0].metadata.labels.routed\.dev/rack}", "r1"),
        ("{.items[0].metadata.labels['routed.dev/rack']}", "r1"),
        ("{..name}", "a b"),
        ("{.items[0].spec.addresses}", '["192.0.2.1","2001:db8::1"]'),
        ("{.items[*].spec.addresses[*]}", "192.0.2.1 2001:db8::1"),
        ("{.items[?(@.spec.asNumber>1)].metadata.name}", "b"),
        ('{.items[?(@.metadata.name!="a")].metadata.name}', "b"),
        ("{.items[?(@.spec.unschedulable)].metadata.name}", "b"),
        ("{.items[?(@.spec.unschedulable==true)].metadata.name}", "b"),
        ('{.items[?(@.status.conditions[0].status=="True")].metadata.name}', "a"),
        ("{.items[?(@.metadata.name>1)].metadata.name}", ""),
        ("{.items[1].spec.unschedulable}", "true"),
        ("{.nothing.at.all}", ""),
        ("{.items[7].metadata.name}", ""),
        ('n: {.items[0].metadata.name}{"\\t"}{"}"}', "n: a\t}"),
        ('{range .items[*]}{.metadata.name}={.spec.asNumber}{"\\n"}{end}', "a=1\nb=2\n"),
        ("{range .items[*]}{range .status.conditions[*]}{.type}{end};{end}", "Ready;Ready;"),
        ("{.items[*].metadata.*}", 'a {"routed.dev/rack":"r1"} b'),
    ],
)
def test_what_a_template_says(template: str, said: str) -> None:
    assert jsonpath.rendered(template, NODES) == said


@pytest.mark.parametrize(
    "template",
    ["{.a", "}", "{range .items[*]}{.a}", "{.a}{end}", "{a}", "{.a[}", "{.a[x]}", "{.a[?(b)]}",
     "{.a[?(@.b==c)]}", "{.a!}", "{}"],
)  # fmt: skip
def test_a_template_that_cannot_be_read_is_named(template: str) -> None:
    with pytest.raises(ConfigError, match="the JSONPath"):
        jsonpath.rendered(template, NODES)


@pytest.mark.parametrize("text", ["xml", "jsonpath", "jsonpath=", "custom-columns=A", "yaml=x"])
def test_an_output_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="-o"):
        Output.of(text)

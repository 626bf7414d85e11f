"""What a demonstration is told with: commands, shown as they are run, and what they say."""

from __future__ import annotations

import json
import shlex
from typing import Any

from api.auth import kubeconfig
from routed.lab import fabric
from routed.lab.fabric import LabError, command, inside
from routed.lab.lab import PORT, Lab


class Stage:
    """The lab called `name`, and the ways into it that are shown. `step_name` is what was said
    last."""

    def __init__(self, name: str) -> None:
        self.lab = Lab(name)
        self.step_name = "set-up"

    # -- ways in -----------------------------------------------------------------------------------

    def ctl(self, *words: str) -> str:
        """`routectl` to the service, from the management network; shown."""
        whole = self.lab.ctl("--kubeconfig", str(self.lab.admin), *words)
        return self.shown(["routectl", *words], [*fabric.prefix(self.lab.top.management), *whole])

    def refused(self, words: list[str], expected: str) -> None:
        """`routectl` that must fail, saying `expected`."""
        self.command_line(["routectl", *words])
        whole = self.lab.ctl("--kubeconfig", str(self.lab.admin), *words)
        try:
            inside(self.lab.top.management, *whole)
        except LabError as error:
            said = str(error).partition("Error: ")[2]
            self.tell(f"refused: {said}")
            if expected not in said:
                raise LabError(f"refused, but without {expected!r}: {error}") from error
            return
        raise LabError(f"routectl {shlex.join(words)} was not refused")

    def service_curl(self, name: str, node: str, namespace: str, **labels: str) -> str:
        """A workload declared through the service; the token stays out of the command line."""
        access = kubeconfig.read(self.lab.admin)
        options = self.lab.directory / "curl.conf"
        options.touch(mode=0o600)
        ca_file = self.lab.directory / "ca.crt"
        ca_file.write_bytes(access.ca)
        options.write_text(
            f'header = "Authorization: Bearer {access.token}"\ncacert = "{ca_file}"\n'
        )
        spec = {"node": node, "netns": namespace, "ipFamilies": ["IPv4", "IPv6"]}
        body = json.dumps({"metadata": {"name": name, "labels": labels}, "spec": spec})
        words = ["curl", "-sS", "--config", str(options), "-d", body,
                 f"https://{self.lab.top.server}:{PORT}/apis/routed.dev/v1/workloads"]  # fmt: skip
        said = self.shown(words, [*fabric.prefix(self.lab.top.management), *words])
        made = json.loads(said)
        if made["kind"] != "Workload":
            raise LabError(f"the service refused: {made.get('message')}")
        return f"workload {made['metadata']['name']} declared for node {made['spec']['node']}"

    def workload(self, name: str) -> dict[str, Any]:
        """The status of a workload, as the service has it."""
        words = ["--kubeconfig", str(self.lab.admin), "get", "workload", name, "-o", "json"]
        status: dict[str, Any] = json.loads(inside(self.lab.top.management, *self.lab.ctl(*words)))[
            "status"
        ]
        return status

    def is_ready(self, name: str) -> bool:
        return bool(self.workload(name)["phase"] == "Ready")

    # -- telling -----------------------------------------------------------------------------------

    def say(self, title: str, does: str = "") -> None:
        self.step_name = title
        print(f"\n== {title}", flush=True)
        if does:
            print(f"$ {does}", flush=True)

    def command_line(self, words: list[str]) -> None:
        print(f"$ {shlex.join(words)}", flush=True)

    def shown(self, words: list[str], real: list[str]) -> str:
        """Run `real`, shown as `words`."""
        self.command_line(words)
        return command(*real).rstrip()

    @staticmethod
    def tell(text: str) -> None:
        for line in text.splitlines():
            print(f"  {line}", flush=True)

"""Credentials by a program (client.authentication.k8s.io/v1), as kubectl gets them.

The kubeconfig names a command; it is told where it is wanted by $KUBERNETES_EXEC_INFO and prints an
ExecCredential with a token, or with a certificate and its key. It may ask its user on the terminal,
so it has our standard input and error. Nothing of it is kept.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from typing import Any

from api.resources.errors import Cause, ConfigError, RoutedError
from routed.ctl import environment

Document = dict[str, Any]
VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")


class PluginFailed(RoutedError):
    """The program gave no credentials."""


def proof(spec: Document, cluster: Document) -> Document:
    """The `user` entry that stands for what the program says. ConfigError, PluginFailed."""
    version, command = str(spec.get("apiVersion", "")), str(spec.get("command", ""))
    if version not in VERSIONS or not command:
        problem = f"exec needs a command and an apiVersion of {' or '.join(VERSIONS)}"
        raise ConfigError("kubeconfig", [Cause("users[].user.exec", problem)])
    mode = spec.get("interactiveMode", "IfAvailable")
    interactive = mode != "Never" and sys.stdin.isatty()
    if mode == "Always" and not interactive:
        raise PluginFailed(f"cannot get credentials: {command} needs a terminal")
    told: Document = {"interactive": interactive}
    if spec.get("provideClusterInfo"):
        told["cluster"] = {k: v for k, v in cluster.items() if k in ("server", _CA)}
    info = {"apiVersion": version, "kind": "ExecCredential", "spec": told}
    more = {str(one["name"]): str(one["value"]) for one in spec.get("env") or ()}
    more["KUBERNETES_EXEC_INFO"] = json.dumps(info)
    try:
        done = subprocess.run(
            [command, *map(str, spec.get("args") or ())],
            env=environment.with_more(more),
            stdin=None if interactive else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=False,
        )
    except OSError as error:
        hint = f"; {spec['installHint'].strip()}" if spec.get("installHint") else ""
        said = f"cannot get credentials: cannot run {command}: {error.strerror}{hint}"
        raise PluginFailed(said) from error
    if done.returncode != 0:
        raise PluginFailed(f"cannot get credentials: {command} ended with {done.returncode}")
    return _entry(command, version, done.stdout)


_CA = "certificate-authority-data"


def _entry(command: str, version: str, said: bytes) -> Document:
    try:
        made = json.loads(said)
        if (made["kind"], made["apiVersion"]) != ("ExecCredential", version):
            raise ValueError(f"it is {made['apiVersion']} {made['kind']}, not {version}")
        status = made["status"]
        if "clientCertificateData" in status:
            pem = (status["clientCertificateData"], status["clientKeyData"])
            coded = [base64.b64encode(one.encode()).decode() for one in pem]
            return {"client-certificate-data": coded[0], "client-key-data": coded[1]}
        return {"token": status["token"]}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise PluginFailed(
            f"cannot get credentials: {command} printed no ExecCredential: {why}"
        ) from error

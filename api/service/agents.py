"""Which release each agent is of, as it says in its User-Agent, and what is against that.

The agent itself stops to work with a control plane that is too far from it, and says so on its
Node; this is the line in the control plane's log, once for each version that a node comes with.
"""

from __future__ import annotations

import logging

from api.resources.versions import VERSION, against

log = logging.getLogger("routed.service")
PROGRAM = "routed-agent"


class Agents:
    """`versions` by node, as last said."""

    def __init__(self) -> None:
        self.versions: dict[str, str] = {}

    def asked(self, node: str, user_agent: str) -> None:
        """The node's agent, or somebody with its credentials, has asked for something."""
        program, _, version = user_agent.partition("/")
        if program != PROGRAM or self.versions.get(node) == version:
            return
        self.versions[node] = version
        us, them = "the control plane", f"the agent of node {node}"
        if problem := against(VERSION, version, us, them):
            log.warning("version skew node=%s: %s", node, problem)

"""The whole examination of an edge."""

import os
from collections.abc import Iterator
from shlex import quote

from fedperfit.edge.audit.verification import verify
from fedperfit.edge.deployment.home import AgentSettings, Home
from fedperfit.edge.doctor.agreement import policy, releases, signed_last
from fedperfit.edge.doctor.cloud import cloud
from fedperfit.edge.doctor.folder import folder, history
from fedperfit.edge.doctor.programs import programs
from fedperfit.protocol.doctor.findings import Finding, Group, ok, wrong
from fedperfit.protocol.doctor.machine import bubblewrap_version, clock, disk, namespaces, program
from fedperfit.protocol.system.errors import count_of


def groups(home: Home, settings: AgentSettings) -> dict[str, Group]:
    """Return all groups of checks, by what they look at.

    Args:
        home: The person's folder.
        settings: The agent's.
    """
    return {
        "machine": lambda: _machine(home, settings),
        "folder": lambda: folder(home),
        "history": lambda: history(home, settings),
        "policy": lambda: policy(home, settings),
        "releases": lambda: releases(home, settings),
        "log": lambda: log(home),
        "programs": lambda: programs(home),
        "cloud": lambda: cloud(home),
    }


def log(home: Home) -> Iterator[Finding]:
    """Check the log of requests and messages.

    Args:
        home: The person's folder.
    """
    verdict = verify(home.audit)
    if verdict.problems:
        said = f"not as it was written: {verdict.problems[0]}"
        advice = f"fedperfit-edge log {quote(str(home.folder))} --verify lists all; find out who changed it"
        yield wrong("log", said, advice)
    else:
        yield ok("log", f"{count_of(verdict.lines, 'line')}, as written")


def _machine(home: Home, settings: AgentSettings) -> Iterator[Finding]:
    yield program("bwrap", "bubblewrap", os.environ.get("PATH", ""))
    yield bubblewrap_version()
    yield namespaces()
    yield disk(home.folder)
    yield from clock(signed_last(home, settings))

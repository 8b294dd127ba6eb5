"""The whole examination of a cloud."""

import os
from collections.abc import Iterator

from fedperfit.cloud.deployment.home import CloudHome
from fedperfit.cloud.deployment.settings import CloudSettings
from fedperfit.cloud.doctor.federation import (
    model_and_policy,
    named_for_sums,
    people,
    releases,
    signed_last,
)
from fedperfit.cloud.doctor.folder import folder, keys
from fedperfit.cloud.doctor.programs import programs
from fedperfit.protocol.doctor.findings import Finding, Group
from fedperfit.protocol.doctor.machine import clock, disk, namespaces, program


def groups(home: CloudHome, settings: CloudSettings) -> dict[str, Group]:
    """Return all groups of checks, by what they look at.

    Args:
        home: The cloud.
        settings: Its settings.
    """
    return {
        "machine": lambda: _machine(home),
        "folder": lambda: folder(home),
        "keys": lambda: keys(home, settings),
        "programs": lambda: programs(home, settings),
        "base model": lambda: model_and_policy(home, settings),
        "releases": lambda: releases(home),
        "people": lambda: people(home),
        "secure sums": lambda: named_for_sums(home, settings),
    }


def _machine(home: CloudHome) -> Iterator[Finding]:
    path = os.environ.get("PATH", "")
    yield program("nginx", "nginx-light", path)
    yield program("bwrap", "bubblewrap", path)
    yield namespaces()
    yield disk(home.folder)
    yield from clock(signed_last(home))

"""What a `join` that was killed has left running: found, told to the owner, and stopped by the next one."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import PurePath

import psutil

from fedperfit.edge.deployment.home import Home
from fedperfit.protocol.system.errors import InputError

AGENT = "fedperfit.edge.cli.main"
"""Module that an agent is started by."""
_SANDBOX = "bwrap"
"""Program that a sandbox's command line begins with, in each of its processes until the first one inside."""
_STOP_SECONDS = 10.0
"""Seconds that an agent whose `join` is gone has to end by itself."""


def running_agents(home: Home) -> list[psutil.Process]:
    """List the agents of a folder that a `join` started.

    Args:
        home: The person's folder.
    """
    end = ["agent", str(home.folder)]
    return [process for process, line in _command_lines() if AGENT in line and line[-2:] == end]


def orphaned(agent: psutil.Process) -> bool:
    """Return whether the `join` that started an agent is gone."""
    with suppress(psutil.Error):
        parent = agent.parent()
        return parent is None or "join" not in parent.cmdline()
    return False


def left_sandboxes(home: Home) -> list[psutil.Process]:
    """List the first processes of the folder's sandboxes whose `join` is gone.

    There can be some: where both `join` and the parent of a sandbox are killed before anything runs in it,
    nothing tells it (fedperfit.protocol.sandboxes.lifeline).

    Args:
        home: The person's folder.
    """
    way_out = str(home.uplink.absolute())
    ours = [one for one, line in _command_lines() if _is_sandbox(line) and way_out in line]
    return [one for one in ours if orphaned(one) and one.ppid() not in {other.pid for other in ours}]


def stop_left_over(home: Home, say: Callable[[str], None]) -> None:
    """Stop what a killed `join` left: its agent, which would hold the vault, and its sandboxes.

    Args:
        home: The person's folder.
        say: Shows a line to the owner.

    Raises:
        InputError: If the `join` of a running agent is not gone.
    """
    for agent in running_agents(home):
        if not orphaned(agent):
            raise InputError(
                f"{home.folder}: its agent runs already, process {agent.pid}; stop its `join` first"
            )
        say(f"the agent of a `join` that is gone, process {agent.pid}, is stopped")
        _stop(agent)
    for sandbox in left_sandboxes(home):
        say(f"a sandbox of a `join` that is gone, process {sandbox.pid}, is stopped")
        with suppress(psutil.NoSuchProcess):
            sandbox.kill()


def _stop(agent: psutil.Process) -> None:
    for stop in (agent.terminate, agent.kill):
        with suppress(psutil.NoSuchProcess):
            stop()
        if not psutil.wait_procs([agent], timeout=_STOP_SECONDS)[1]:
            break


def _command_lines() -> Iterator[tuple[psutil.Process, list[str]]]:
    """Yield this account's processes and their command lines: of others', anybody can make any."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if not hasattr(os, "getuid") or process.uids().real == os.getuid():
                yield process, process.cmdline()


def _is_sandbox(line: list[str]) -> bool:
    return bool(line) and PurePath(line[0]).name == _SANDBOX

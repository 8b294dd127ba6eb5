"""The first program in the sandbox: limits itself, opens the way to the cloud, and runs the SuperNode.

The sandbox has a network of its own with nothing on it. What connects to `CLOUD_PORT` there is passed on to a
socket of the edge's uplink outside, which leads to the enrolled address and nowhere else.
"""

import argparse
import asyncio
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from fedperfit.edge.sandbox import CLOUD_PORT, MIRROR_PORT, SCRATCH
from fedperfit.edge.sandbox.execution import refuse_execution
from fedperfit.edge.sandbox.relay import Relay, Streams
from fedperfit.edge.sandbox.system_calls import refuse_system_calls
from fedperfit.protocol.sandboxes.lifeline import follow_starter
from fedperfit.protocol.system.processes import SAFE_PATH

LIMITS = {
    resource.RLIMIT_DATA: 1 << 30,
    resource.RLIMIT_AS: 8 << 30,
    resource.RLIMIT_NPROC: 256,
    resource.RLIMIT_NOFILE: 512,
    resource.RLIMIT_FSIZE: 32 << 20,
    resource.RLIMIT_CORE: 0,
}
"""Most that a process of the sandbox may have: bytes of memory and of addresses, threads and processes of the
whole sandbox, open files, bytes of one file, bytes of a core dump."""
_COUNTS_SANDBOX = (5, 14)
"""First Linux that counts a namespace's processes apart from the person's others."""
_CONNECTIONS = 32


def main() -> int:
    """Run the command given on the command line; return its exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--uplink", type=Path, help="socket that leads to the cloud")
    parser.add_argument("--mirror", type=Path, help="socket that leads to the mirror of releases")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    _limit()
    if not refuse_execution([Path(folder) for folder in SCRATCH]):
        print("what is written here could be executed: this kernel has no Landlock", file=sys.stderr)
    if not refuse_system_calls():
        print("no system calls are refused: those of this processor are not known", file=sys.stderr)
    follow_starter()
    ways = {CLOUD_PORT: arguments.uplink, MIRROR_PORT: arguments.mirror}
    return asyncio.run(_run(arguments.command, ways))


def _limit() -> None:
    major, minor = re.findall(r"\d+", os.uname().release)[:2]
    for kind, most in LIMITS.items():
        if kind == resource.RLIMIT_NPROC and (int(major), int(minor)) < _COUNTS_SANDBOX:
            continue
        _, hard = resource.getrlimit(kind)
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (allowed, allowed))


async def _run(command: list[str], ways: Mapping[int, Path | None]) -> int:
    for port, way in ways.items():
        if way is not None:
            await _lead(port, way)
    child = await asyncio.create_subprocess_exec(
        *command, env=os.environ | SAFE_PATH, stdin=subprocess.DEVNULL
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, child.terminate)
    code = await child.wait()
    return code if code >= 0 else 128 - code


async def _lead(port: int, way: Path) -> None:
    """Pass what connects to a port on to a socket of the edge's outside."""

    async def connect() -> Streams:
        return await asyncio.open_unix_connection(way)

    await asyncio.start_server(Relay(connect, most=_CONNECTIONS), "127.0.0.1", port)


if __name__ == "__main__":
    raise SystemExit(main())

"""System calls from within the sandbox, and the same ones outside."""

import errno
import json
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.edge.deployment.sandboxes import inside, outside

from fedperfit.edge.sandbox.system_calls import REFUSED, refuse_system_calls

needs_numbers = pytest.mark.skipif(platform.machine() not in REFUSED, reason="not known for this processor")
CALL = """
import ctypes, json, sys
libc = ctypes.CDLL(None, use_errno=True)
def called(number, *arguments):
    ctypes.set_errno(0)
    return 0 if libc.syscall(number, *arguments) >= 0 else ctypes.get_errno()
print(json.dumps({name: called(number, *arguments) for name, number, *arguments in json.loads(sys.argv[1])}))
"""
HARMLESS = (
    "keyctl",
    "personality",
    "process_vm_readv",
    "io_uring_setup",
    "memfd_secret",
    "kcmp",
    "userfaultfd",
)
"""Calls that any program may make; with these arguments they do nothing."""


def calls(*names: str) -> str:
    numbers = REFUSED[platform.machine()]
    return json.dumps([(name, numbers[name], -1, -1, -1, -1, -1, -1) for name in names])


@needs_numbers
def test_refused_calls_fail_inside() -> None:
    told = json.loads(inside(CALL, calls(*REFUSED[platform.machine()]), shown={}))
    assert {name: number for name, number in told.items() if number != errno.EPERM} == {}
    assert len(told) > 40


@needs_numbers
def test_guard_off_some_of_them_are_open_to_any_program() -> None:
    told = json.loads(outside(CALL, calls(*HARMLESS)))
    assert sum(number != errno.EPERM for number in told.values()) > len(HARMLESS) / 2, told


SOCKETS = """
import json, socket
def made(family, kind):
    try:
        socket.socket(family, kind).close()
    except OSError as error:
        return error.errno
    return 0
print(json.dumps({str(family): made(family, kind) for family in range(1, 46)
                  for kind in [socket.SOCK_STREAM if family in (1, 2, 10, 40) else socket.SOCK_DGRAM]}))
"""


@needs_numbers
def test_sockets_are_those_of_unix_and_of_the_network_alone() -> None:
    told = json.loads(inside(SOCKETS, shown={}))
    assert {family for family, number in told.items() if number == 0} <= {"1", "2", "10", "16"}
    assert {told[str(family)] for family in range(1, 46) if family not in (1, 2, 10, 16)} == {errno.EPERM}
    assert {told["1"], told["2"]} == {0}
    control = json.loads(outside(SOCKETS))
    assert len({family for family, number in control.items() if number != errno.EPERM}) > 20


@needs_numbers
def test_processes_start_but_no_namespaces(tmp_path: Path) -> None:
    code = """
import ctypes, os, signal, subprocess, threading
threading.Thread(target=lambda: None).start()
print(subprocess.run(["true"]).returncode, os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)[1])
libc = ctypes.CDLL(None, use_errno=True)
clone = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
for flags in (0x20000, 0x10000000, 0x40000000):
    print(libc.syscall(clone, flags | signal.SIGCHLD, None, None, None, None), ctypes.get_errno())
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("Seccomp:")])
"""
    first, *clones, last = inside(code, shown={}).splitlines()
    assert first == "0 0"
    assert clones == [f"-1 {errno.EPERM}"] * 3
    assert last == "['2']"


def test_numbers_are_those_of_the_kernels_headers() -> None:
    headers = {
        "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        "aarch64": Path("/usr/include/asm-generic/unistd.h"),
    }
    known = {machine: path for machine, path in headers.items() if path.exists()}
    if not known:
        pytest.skip("no kernel headers here")
    for machine, path in known.items():
        text = path.read_text()
        numbers = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+)\s+(\d+)", text)}
        numbers |= {name: int(number) for name, number in re.findall(r"#define __NR3264_(\w+)\s+(\d+)", text)}
        there = {name: number for name, number in REFUSED[machine].items() if name in numbers}
        assert {name: numbers[name] for name in there} == there
        assert len(there) > 35


def test_another_processor_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert not refuse_system_calls()


@needs_numbers
def test_it_holds_for_this_process_at_once() -> None:
    code = """
import os
from fedperfit.edge.sandbox.system_calls import refuse_system_calls
refuse_system_calls()
os.chroot("/")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "PermissionError" in done.stderr

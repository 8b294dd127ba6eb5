"""System calls that nothing in the sandbox needs, refused by a filter that the kernel applies (seccomp).

They mount, trace, load code into the kernel, read keys and other processes, or make namespaces, or files in
memory that are in no folder, and so beyond the rule on what is executed (fedperfit.edge.sandbox.execution).
Of sockets those of Unix and of the network are left, because some of the others, such as a virtual machine's
way to its host, do not belong to a network of their own.
"""

import ctypes
import errno
import platform
import struct
from collections.abc import Iterable

_COMMON = {
    **{"io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428},
    **{"move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_getfd": 438},
    **{"mount_setattr": 442, "quotactl_fd": 443, "memfd_secret": 447},
}
"""Numbers of calls that are the same on every processor."""
REFUSED = {
    "x86_64": _COMMON
    | {"ptrace": 101, "syslog": 103, "personality": 135, "vhangup": 153, "modify_ldt": 154, "pivot_root": 155}
    | {"chroot": 161, "acct": 163, "settimeofday": 164, "mount": 165, "umount2": 166, "swapon": 167}
    | {"swapoff": 168, "reboot": 169, "sethostname": 170, "setdomainname": 171, "iopl": 172, "ioperm": 173}
    | {"init_module": 175, "delete_module": 176, "quotactl": 179, "kexec_load": 246, "add_key": 248}
    | {"request_key": 249, "keyctl": 250, "migrate_pages": 256, "unshare": 272, "perf_event_open": 298}
    | {"name_to_handle_at": 303, "open_by_handle_at": 304, "clock_adjtime": 305, "setns": 308}
    | {"process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "finit_module": 313}
    | {"memfd_create": 319}
    | {"kexec_file_load": 320, "bpf": 321, "userfaultfd": 323},
    "aarch64": _COMMON
    | {"umount2": 39, "mount": 40, "pivot_root": 41, "chroot": 51, "vhangup": 58, "quotactl": 60, "acct": 89}
    | {"personality": 92, "unshare": 97, "kexec_load": 104, "init_module": 105, "delete_module": 106}
    | {"syslog": 116, "ptrace": 117, "reboot": 142, "sethostname": 161, "setdomainname": 162}
    | {"settimeofday": 170, "add_key": 217, "request_key": 218, "keyctl": 219, "swapon": 224, "swapoff": 225}
    | {"migrate_pages": 238, "perf_event_open": 241, "name_to_handle_at": 264, "open_by_handle_at": 265}
    | {"clock_adjtime": 266, "setns": 268, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272}
    | {"finit_module": 273, "memfd_create": 279, "bpf": 280, "userfaultfd": 282, "kexec_file_load": 294},
}
"""Number of each refused call, by processor."""
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE = {"x86_64": 56, "aarch64": 220}
_SOCKET = {"x86_64": 41, "aarch64": 198}
_CLONE3 = 435
_NEW_NAMESPACES = 0x7E020000
"""Flags of `clone` that make namespaces."""
_FAMILIES = (1, 2, 10, 16)
"""Unix, IPv4, IPv6 and, for the lists of interfaces that the C library asks for, netlink."""
_FIRST_X32 = 0x40000000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _PROCESSOR, _FIRST_ARGUMENT = 0, 4, 16
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def refuse_system_calls() -> bool:
    """Have the kernel refuse the calls, to this process and all it starts, from now on.

    Returns:
        Whether it does; it cannot where the processor's numbers are not known.

    Raises:
        OSError: If the kernel has no filters.
    """
    machine = platform.machine()
    if machine not in REFUSED:
        return False
    content = b"".join(_filter(machine))
    program = _Program(len(content) // 8, content)
    libc = ctypes.CDLL(None, use_errno=True)
    for option, *values in ((_NO_NEW_PRIVILEGES, 1), (_SET_SECCOMP, _FILTER, ctypes.byref(program))):
        if libc.prctl(option, *values, *([0] * (4 - len(values)))):
            number = ctypes.get_errno()
            raise OSError(number, "system calls cannot be filtered")
    return True


def _filter(machine: str) -> Iterable[bytes]:
    """Yield the instructions, which run for each call: eight bytes, as Linux's `struct sock_filter`."""
    yield _instruction(_LOAD, _PROCESSOR)
    yield _instruction(_EQUAL, _ARCHITECTURE[machine], true=1)
    yield _instruction(_RETURN, _KILL)
    yield _instruction(_LOAD, _NUMBER)
    yield from _when(_AT_LEAST, _FIRST_X32, _KILL)
    for number in REFUSED[machine].values():
        yield from _when(_EQUAL, number, _FAIL | errno.EPERM)
    yield from _when(_EQUAL, _CLONE3, _FAIL | errno.ENOSYS)  # its flags are in memory; programs fall back
    clone = [_instruction(_LOAD, _FIRST_ARGUMENT), *_when(_ANY_BIT, _NEW_NAMESPACES, _FAIL | errno.EPERM)]
    yield from _only(_CLONE[machine], [*clone, _instruction(_RETURN, _ALLOW)])
    families = [one for family in _FAMILIES for one in _when(_EQUAL, family, _ALLOW)]
    socket = [_instruction(_LOAD, _FIRST_ARGUMENT), *families, _instruction(_RETURN, _FAIL | errno.EPERM)]
    yield from _only(_SOCKET[machine], socket)
    yield _instruction(_RETURN, _ALLOW)


def _instruction(code: int, value: int, *, true: int = 0, false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, true, false, value)


def _when(test: int, value: int, then: int) -> list[bytes]:
    """Decide on the call where the test holds; go on where it does not."""
    return [_instruction(test, value, false=1), _instruction(_RETURN, then)]


def _only(number: int, instructions: list[bytes]) -> list[bytes]:
    """Run the instructions for one call alone; they must return."""
    return [_instruction(_EQUAL, number, false=len(instructions)), *instructions]

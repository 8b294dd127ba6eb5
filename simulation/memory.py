"""Peak memory of a block of code, above what was in use before it."""

import ctypes
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

_CLEAR_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class Peak:
    """Context manager that measures the peak memory of its block.

    Attributes:
        bytes: Most bytes in use within the block above those before it; None until the block ends, or where
        the system does not tell.
    """

    def __init__(self, device: torch.device) -> None:
        """Measure `device`'s memory if it is a GPU, otherwise this process's resident memory."""
        self._cuda = device.type == "cuda"
        self.bytes: int | None = None

    def __enter__(self) -> Self:
        self._before = reset_peak(self._cuda)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        peak = torch.cuda.max_memory_allocated() if self._cuda else status_bytes("VmHWM")
        if self._before is not None and peak is not None:
            self.bytes = max(0, peak - self._before)


def reset_peak(cuda: bool) -> int | None:
    """Start a new peak and return the bytes in use now, after freed memory was given back.

    Args:
        cuda: Take the GPU's memory instead of the process's.

    Returns:
        Bytes in use, or None where the system does not tell.
    """
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        _CLEAR_REFS.write_text("5")
    except OSError:
        return None
    return status_bytes("VmRSS")


def status_bytes(name: str) -> int | None:
    """Return the bytes on the line `name` of /proc/self/status, or None where there is no such line."""
    if not _STATUS.exists():
        return None
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    return None

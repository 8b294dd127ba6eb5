"""The most memory that each process of a cloud or an edge may have, also where no service manager bounds it.

It is a bound on the data of a process (RLIMIT_DATA, all that it allocates), which all that it starts inherit.
Not on addresses (RLIMIT_AS): torch and CUDA reserve far more of those than they ever use. And not on all
processes together: that takes a control group of one's own, which accounts have only where a service manager
delegates one, and there it bounds memory itself (configs/systemd).
"""

import sys

import psutil

_SHARE = 0.8
"""Share of the machine's memory that a process may have by default, as the units say of all together."""


def limit_memory(gib: float) -> int:
    """Bound the memory of this process, and of each that it starts from now on.

    What allocates more fails, and with it the one request that asked for it; the kernel would otherwise end
    some process of the machine, not always ours.

    Args:
        gib: The bound in GiB; 0 is four fifths of the machine's memory.

    Returns:
        The bound in bytes, which is an earlier one where that is lower; 0 where the system has none.
    """
    if sys.platform != "linux":
        return 0
    import resource

    wanted = int(gib * 2**30) or int(psutil.virtual_memory().total * _SHARE)
    _, before = resource.getrlimit(resource.RLIMIT_DATA)
    most = wanted if before == resource.RLIM_INFINITY else min(wanted, before)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    return most

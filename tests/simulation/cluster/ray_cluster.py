"""A cluster of two nodes on this machine for the tests of a file, gone when they are done."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import ray
from ray.cluster_utils import Cluster

from fedperfit.protocol.system.flower import EQUAL, QUIET

STORE_BYTES = 100 << 20


@contextmanager
def two_nodes() -> Iterator[Cluster]:
    """Two raylets with a core each, of which the second is not the driver's."""
    node = {"num_cpus": 1, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    with pytest.MonkeyPatch.context() as patched:
        for name, value in (QUIET | EQUAL).items():
            patched.setenv(name, value)
        cluster = Cluster(initialize_head=True, head_node_args=node)
        try:
            cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
            cluster.wait_for_nodes()
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()

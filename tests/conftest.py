"""Settings that all tests share."""

import os

# Before torch is loaded: threads that wait spinning slow whatever else runs beside the tests, and them too.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # files of tests run side by side, one per core

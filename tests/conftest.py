"""For all tests."""

import os

# Before torch is loaded: threads that wait spinning slow whatever else runs beside the tests, and them too.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

"""Number of inputs that a fuzz test tries: a thousand in the gate, FEDPERFIT_FUZZ of them on request."""

import os

from hypothesis import HealthCheck, settings

FUZZED = settings(
    max_examples=int(os.environ.get("FEDPERFIT_FUZZ", "1000")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

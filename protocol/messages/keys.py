"""The records and keys of every message between cloud and edge; nothing else may be in one.

    status       -> status reply
    contribute   -> update + counts (+ metrics)
    personalize  -> counts (+ metrics)
    evaluate     -> counts (+ metrics)
    moments      -> counts + statistics
    probe        -> counts (+ statistics)
    pull         -> counts + statistics

Metrics are sums over a client's items and are sent only when the client's owner allows it. Statistics are
sums or means over a client's pairs (`statistics.py`); nothing in them belongs to one pair.
"""

SHIFT_RECORD = "shift"
"""ArrayRecord, both ways: holds exactly one array, the packed collective shift."""
SHIFT_KEY = "packed"
SHIFT_STYPE = "fedperfit.shift.v1"
"""Serialisation type of that array: bytes of `protocol.shift.packing`, dtype uint8, shape (bytes,)."""

SETTINGS_RECORD = "settings"
"""ConfigRecord, cloud to edge: what to do and how."""

COUNTS_RECORD = "counts"
"""MetricRecord, edge to cloud: always present in a reply."""
ITEMS_KEY = "items"
"""Training pairs, or answered questions, behind this reply."""
ROUND_KEY = "round"
"""Echo of the round the reply belongs to."""

METRICS_RECORD = "metrics"
"""MetricRecord, edge to cloud: sums over items, only with the owner's leave."""

STATISTICS_RECORD = "statistics"
"""ConfigRecord of bytes, both ways; in a reply it holds one of the three below that go up."""
MOMENTS_KEY = "moments"
"""Up: what a client tells of its pairs."""
PROBES_KEY = "probes"
"""Down: (layers, rank + 1, restarts)."""
VIEW_KEY = "view"
"""Down, with the first probes: the view of the frame they are in. Later probes come without."""
SUMS_KEY = "sums"
"""Up: of the probes' losses and gradients. A client that does not have the view, because
its agent was started anew, leaves the statistics out and counts no items; it is then sent again."""
LAYER_GRADIENT_KEY = "pull"
"""Up: the mean gradient of a client's loss at each layer, and the length of its states there."""
VIEW_DIGEST_KEY = "view-digest"
"""In the settings of a probe: SHA-256 of the view's bytes."""

STATUS_RECORD = "status"
"""ConfigRecord, edge to cloud: the answer to a status query."""

STATUS_TYPE = "query.status"
CONTRIBUTE_TYPE = "train.contribute"
PERSONALIZE_TYPE = "train.personalize"
EVALUATE_TYPE = "evaluate.stage"
MOMENTS_TYPE = "train.moments"
PROBE_TYPE = "train.probe"
LAYER_GRADIENT_TYPE = "train.pull"
"""Flower message types: the category before the dot, the action of the ClientApp after it."""

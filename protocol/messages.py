"""The records and keys of every message between cloud and edge; nothing else may be in one.

    status       -> status reply
    contribute   -> update + counts (+ metrics)
    personalize  -> counts (+ metrics)
    evaluate     -> counts (+ metrics)

Metrics are sums over a client's items and are sent only when the client's owner allows it.
"""

SHIFT_RECORD = "shift"
"""ArrayRecord, both ways: holds exactly one array, the packed collective shift."""
SHIFT_KEY = "packed"
SHIFT_STYPE = "fedperfit.shift.v1"
"""Serialisation type of that array: bytes of `protocol.packing`, dtype uint8, shape (bytes,)."""

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

STATUS_RECORD = "status"
"""ConfigRecord, edge to cloud: the answer to a status query."""

STATUS_TYPE = "query.status"
CONTRIBUTE_TYPE = "train.contribute"
PERSONALIZE_TYPE = "train.personalize"
EVALUATE_TYPE = "evaluate.stage"
"""Flower message types: the category before the dot, the action of the ClientApp after it."""

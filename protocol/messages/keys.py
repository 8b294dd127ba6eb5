"""The records and keys of every message between cloud and edge; nothing else may be in one.

    status       -> status reply
    contribute   -> shift + counts (+ metrics), or with an update-basis the update record alone
    personalize  -> counts (+ metrics)
    evaluate     -> counts (+ metrics)
    moments      -> counts + statistics
    probe        -> counts (+ statistics)
    pull         -> counts + statistics
    sum          -> sum, of a member of the committee

`pull` is the wire's name for layer gradients. Metrics are sums over a client's items, sent only if the
client's owner allows it. Statistics are sums or means over a client's pairs (`statistics.py`); no number
in them belongs to one pair.
"""

SHIFT_RECORD = "shift"
"""ArrayRecord, in both directions: exactly one array, the packed collective shift."""
SHIFT_KEY = "packed"
"""The array's name. In a basis, where each record costs requests of Flower's, the cloud sends the bytes under
this key of the settings record (`protocol.messages.broadcast`)."""
SHIFT_STYPE = "fedperfit.shift.v1"
"""Serialization type of that array: bytes of `protocol.shift.packing`, dtype uint8, shape (bytes,)."""

BASIS_RECORD = "basis"
"""ConfigRecord, cloud to edge with the first request in a basis: its bytes. Later requests come without."""
BASIS_KEY = "basis"
UPDATE_RECORD = "update"
"""ConfigRecord, edge to cloud: all of a reply in a basis, for each record costs requests of Flower's."""
UPDATE_KEY = "update"
"""Edge to cloud: bytes of `protocol.shift.coordinate_packing`; missing, with no items, where the client lacks
the basis, which is then sent again."""

SETTINGS_RECORD = "settings"
"""ConfigRecord, cloud to edge: the settings of the work asked for."""

COUNTS_RECORD = "counts"
"""MetricRecord, edge to cloud, in every reply."""
ITEMS_KEY = "items"
"""Number of training pairs or answered questions behind the reply."""
ROUND_KEY = "round"
"""Round the message belongs to, repeated in the reply."""

METRICS_RECORD = "metrics"
"""MetricRecord, edge to cloud: sums over items, only if the owner allows it."""

STATISTICS_RECORD = "statistics"
"""ConfigRecord of bytes, in both directions; in a reply one of moments, sums and layer gradients."""
MOMENTS_KEY = "moments"
"""Edge to cloud: a summary of the client's preference pairs."""
PROBES_KEY = "probes"
"""Cloud to edge: probes (layers, rank + 1, restarts)."""
VIEW_KEY = "view"
"""Cloud to edge, with the first probes: the view of the frame they are in. Later probes come without."""
SUMS_KEY = "sums"
"""Edge to cloud: sums over pairs of the probes' losses and gradients. A client that lacks the view, because
its agent was restarted, leaves the statistics out and counts no items; the view is then sent again."""
LAYER_GRADIENT_KEY = "pull"
"""Edge to cloud: gradient of the client's mean loss at each layer, and the length of its states there."""
VIEW_DIGEST_KEY = "view-digest"
"""SHA-256 of the view's bytes, in the settings of a probe."""

ENVELOPES_RECORD = "envelopes"
"""ConfigRecord, cloud to a member of the committee: who contributed, and what each sealed to the member."""
CLIENTS_KEY = "clients"
"""Names of the contributors."""
ENVELOPES_KEY = "envelopes"
"""Their envelopes (`protocol.secure_sums.sealing`), in the same order."""
SUM_RECORD = "sum"
"""ConfigRecord, a member to the cloud: the round, and either the sum of the shares or the bad ones."""
SUM_KEY = "sum"
BAD_KEY = "bad"
"""Names of the contributors whose shares the member cannot open."""

STATUS_RECORD = "status"
"""ConfigRecord, edge to cloud: the answer to a status query."""

STATUS_TYPE = "query.status"
CONTRIBUTE_TYPE = "train.contribute"
PERSONALIZE_TYPE = "train.personalize"
EVALUATE_TYPE = "evaluate.stage"
MOMENTS_TYPE = "train.moments"
PROBE_TYPE = "train.probe"
LAYER_GRADIENT_TYPE = "train.pull"
SUM_TYPE = "train.sum"
"""Flower message types: the category before the dot, the action of the ClientApp after it."""

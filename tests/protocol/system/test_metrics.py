"""The text format of Prometheus, whatever is in a label."""

from fedperfit.protocol.system.metrics import Metric, gauge, text


def test_names_help_types_labels_and_values_stand_as_prometheus_reads_them():
    requests = {("a", "refused"): 2.0, ('q"\\\n', "answered"): 1e12}
    written = text(
        "x",
        [
            Metric("requests_total", "counter", "Requests.", requests, ("kind", "decision")),
            gauge("up", "Up.", True),
        ],
    )
    assert written.splitlines() == [
        "# HELP x_requests_total Requests.",
        "# TYPE x_requests_total counter",
        'x_requests_total{kind="a",decision="refused"} 2',
        'x_requests_total{kind="q\\"\\\\\\n",decision="answered"} 1000000000000',
        "# HELP x_up Up.",
        "# TYPE x_up gauge",
        "x_up 1",
    ]
    assert text("x", [Metric("none", "gauge", "None.")]).strip() == ""

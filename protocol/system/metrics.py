"""Numbers for operators, in the text format that Prometheus reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Media type of the text format."""


@dataclass(frozen=True)
class Metric:
    """One number, or one for each combination of labels."""

    name: str
    """Name without the prefix that all have."""
    kind: Literal["counter", "gauge"]
    """Whether it only ever grows."""
    about: str
    """Meaning, in one line."""
    values: Mapping[tuple[str, ...], float] = field(default_factory=dict)
    """Numbers by the values of the labels."""
    labels: Sequence[str] = ()
    """Names of the labels."""


def gauge(name: str, about: str, value: float) -> Metric:
    """Return a number that goes up and down."""
    return Metric(name, "gauge", about, {(): value})


def text(prefix: str, metrics: Sequence[Metric]) -> str:
    """Write metrics in Prometheus' text format.

    Args:
        prefix: Beginning of all names.
        metrics: Metrics; one without numbers is left out.
    """
    lines = []
    for metric in metrics:
        if not metric.values:
            continue
        name = f"{prefix}_{metric.name}"
        lines += [f"# HELP {name} {metric.about}", f"# TYPE {name} {metric.kind}"]
        for values, number in sorted(metric.values.items()):
            pairs = ",".join(f'{k}="{_escaped(v)}"' for k, v in zip(metric.labels, values, strict=True))
            lines.append(f"{name}{{{pairs}}} {number:.17g}" if pairs else f"{name} {number:.17g}")
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

"""Table of docs/architectures.md: `python -m tools.architectures` (minutes; nothing is downloaded).

Every causal architecture of transformers, small and random: which path each kind of work takes, and how far
it is from running every row whole, on rows longer than those that chose the path. The exit code is 1 where
a difference stays unnoticed.
"""

import logging
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path as File

import transformers
from tools.tiny_architectures import tiny_models

from fedperfit.edge.engine.examples import Example
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.paths.check import checked
from fedperfit.edge.engine.paths.comparing import label_difference, text_difference, training_difference
from fedperfit.edge.engine.paths.path import Path, Paths
from fedperfit.edge.engine.paths.probe import Probe, probe_of
from fedperfit.protocol.model.base_model import BaseModel
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.system.errors import InputError

PAGE = File(__file__).parents[1] / "docs/architectures.md"
_PLACE = re.compile(r"(<!-- architectures -->\n).*?(<!-- /architectures -->)", re.S)
_LAYERS = (1, 2)
_POSITIONS = ("l7", "f3+l4")
_MOST = 1e-3
"""Greatest difference in logits, as a part of the largest."""


@dataclass(frozen=True)
class Row:
    """What was found with one architecture."""

    name: str
    """Type of the model, e.g. `llama`."""
    state: str
    """One of `fast`, `plain`, `refused`, `not made`, `differs`."""
    told: str
    """What a user is told, or the greatest difference."""


def rows() -> Iterator[Row]:
    """Check all architectures in turn."""
    for name, base in tiny_models():
        yield Row(name, "not made", base) if isinstance(base, str) else checked_row(name, base)


def checked_row(name: str, base: BaseModel) -> Row:
    """Check one architecture, with shifts at the last and with shifts at the first and last tokens.

    Args:
        name: Type of the model.
        base: A small random one.
    """
    greatest, told = 0.0, ""
    for positions in map(Positions.parse, _POSITIONS):
        try:
            paths = checked(base, _LAYERS, positions)
        except InputError as error:
            return Row(name, "refused", str(error))
        greatest = max(greatest, _difference(base, paths, longer(base, probe_of(base, _LAYERS, positions))))
        told = told or paths.told
    if not greatest <= _MOST:
        return Row(name, "differs", f"by {greatest:.1g}")
    return Row(name, "plain" if told else "fast", told or f"at most {greatest:.0e}")


def longer(base: BaseModel, probe: Probe) -> Probe:
    """Make rows of about 30 and 45 tokens, longer than any window, of those of a probe.

    Args:
        base: The model.
        probe: Rows of about 15 tokens, which begin alike.
    """
    first, second = probe.examples
    rows = (
        Example(first.prompt + second.prompt[4:], first.target),
        Example(second.prompt + first.prompt[4:] + second.prompt[4:], second.target),
    )
    return replace(probe, examples=rows, items=ItemCache(base))


def _difference(base: BaseModel, paths: Paths, probe: Probe) -> float:
    """Return how far the chosen paths are from whole rows; the plain path is that by definition."""
    differences = [text_difference(base, probe, paths.text)]
    if paths.training is Path.FAST:
        differences.append(training_difference(base, probe))
    if paths.labels is Path.FAST:
        differences.append(label_difference(base, probe))
    return max(differences)


def table(found: list[Row]) -> str:
    """Tabulate what was found in Markdown.

    Args:
        found: Rows in the order of the table.
    """
    counts = Counter(row.state for row in found)
    summary = (
        f"{len(found) - counts['not made']} architectures of transformers {transformers.__version__}: "
        f"{counts['fast']} take the fast path in everything, {counts['plain']} the plain path in something, "
        f"{counts['refused']} are refused; {counts['differs']} differ unnoticed. "
        f"{counts['not made']} more could not be made small."
    )
    lines = [summary, "", "| architecture | path | greatest difference, or what is told |", "|---|---|---|"]
    for row in found:
        if row.state != "not made":
            lines.append(f"| `{row.name}` | {row.state} | {row.told.replace('|', '/')} |")
    return "\n".join(lines)


def main() -> int:
    """Check all architectures and write the table into the docs."""
    warnings.filterwarnings("ignore")
    transformers.utils.logging.set_verbosity(logging.CRITICAL)
    logging.getLogger("fedperfit").setLevel(logging.ERROR)
    found = []
    for row in rows():
        print(f"{row.name}: {row.state}, {row.told}", flush=True)
        found.append(row)
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(_PLACE.sub(lambda place: f"{place[1]}{table(found)}\n{place[2]}", page), encoding="utf-8")
    return 1 if any(row.state == "differs" for row in found) else 0


if __name__ == "__main__":
    sys.exit(main())

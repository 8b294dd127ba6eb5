"""Tables of docs/architectures.md: `python -m tools.architectures` (minutes; nothing is downloaded).

Every causal architecture of transformers, and every encoder-decoder one of text, small and random: which path
each kind of work takes, and how far it is from running every row whole, on rows longer than those that chose
the path. `architectures` or `encoder-decoders` as an argument makes that table alone. The exit code is 1
where a difference stays unnoticed.
"""

import logging
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path as File

import transformers
from tools.tiny_architectures import (
    encoder_decoder_names,
    names,
    tiny_encoder_decoder,
    tiny_model,
    tiny_models,
)

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
TABLES: dict[str, tuple[Callable[[], list[str]], Callable[[str], BaseModel]]] = {
    "architectures": (names, tiny_model),
    "encoder-decoders": (encoder_decoder_names, tiny_encoder_decoder),
}
"""Names of a table's architectures and what makes the model of one, by the table's place on the page."""
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


def rows(place: str) -> Iterator[Row]:
    """Check all architectures of a table in turn.

    Args:
        place: Name of the table.
    """
    listed, make = TABLES[place]
    for name, base in tiny_models(listed(), make):
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
    mark = tuple(base.mark)
    (one, first), (two, second) = ((e.prompt[: len(e.prompt) - len(mark)], e) for e in probe.examples)
    rows = (
        Example(one + two[4:] + mark, first.target),
        Example(two + one[4:] + two[4:] + mark, second.target),
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


def main(places: list[str]) -> int:
    """Check architectures and write their tables into the docs.

    Args:
        places: Names of the tables; none for all.
    """
    warnings.filterwarnings("ignore")
    transformers.utils.logging.set_verbosity(logging.CRITICAL)
    logging.getLogger("fedperfit").setLevel(logging.ERROR)
    differs = False
    for place in places or TABLES:
        found = []
        for row in rows(place):
            print(f"{row.name}: {row.state}, {row.told}", flush=True)
            found.append(row)
        _write(place, table(found))
        differs |= any(row.state == "differs" for row in found)
    return int(differs)


def _write(place: str, text: str) -> None:
    marks = re.compile(rf"(<!-- {place} -->\n).*?(<!-- /{place} -->)", re.S)
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(marks.sub(lambda found: f"{found[1]}{text}\n{found[2]}", page), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

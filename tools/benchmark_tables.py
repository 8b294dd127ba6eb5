"""Tables of docs/benchmarks.md, made from `benchmarks/results/`: `python -m tools.benchmark_tables`.

A record is the `--out` of `fedperfit benchmark`, run in a checkout without changes, or with a `--note` that
says which. A table stands between `<!-- benchmark:NAME -->` and `<!-- /benchmark -->`; it shows the training
part of a record and where its figures come from.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = Path("docs/benchmarks.md")
RESULTS = Path("benchmarks/results")
_PLACE = re.compile(r"(<!-- benchmark:([\w-]+) -->\n).*?(<!-- /benchmark -->)", re.S)


def filled(page: str, results: Path) -> str:
    """Put the current table in every place of a page.

    Args:
        page: Text of the page.
        results: Folder of the records.

    Raises:
        FileNotFoundError: A place names a record that is not there.
    """

    def fill(place: re.Match[str]) -> str:
        record = json.loads((results / f"{place[2]}.json").read_text(encoding="utf-8"))
        return f"{place[1]}{table(record)}\n\n{source(record)}\n{place[3]}"

    return _PLACE.sub(fill, page)


def table(record: Mapping[str, Any]) -> str:
    """Tabulate the training part of a record in Markdown, a row per task and positions."""
    contenders = list(record["training"][0]["contenders"])
    lines = [f"| task, positions | {' | '.join(contenders)} | gain over plain, of the bound |"]
    lines.append("|---" * (len(contenders) + 2) + "|")
    for row in record["training"]:
        figures = row["contenders"]
        seconds = [_seconds(figures[name]) for name in contenders]
        cells = [f"{row['task']} {row['positions']}", *seconds, _gain(figures.get("plain", {}))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def source(record: Mapping[str, Any]) -> str:
    """Say in one sentence where the figures of a record come from."""
    origin = record["origin"]
    machine, versions, settings = origin["machine"], origin["versions"], record["settings"]
    parts = [
        f"Seconds per user; commit `{origin['commit'][:12]}`, {origin['started'][:10]}",
        settings.get("machine", {}).get("device", ""),
        f"{machine['processor']}, {settings['threads']} of {machine['cores']} cores",
        ", ".join(f"{name} {version}" for name, version in versions.items() if name != "fedperfit"),
        origin["note"],
    ]
    return "; ".join(part for part in parts if part) + "."


def _seconds(figures: Mapping[str, Any]) -> str:
    if "seconds_per_user" not in figures:
        return "not measured"
    seconds = figures["seconds_per_user"]
    return f"{seconds:.3f}" if seconds < 0.1 else f"{seconds:.2f}"


def _gain(figures: Mapping[str, Any]) -> str:
    if "speed_up" not in figures:
        return ""
    return f"{figures['speed_up']:.1f}x, {100 * figures['share_of_bound']:.0f} %"


def main() -> None:
    """Write the tables into the page."""
    page = ROOT / PAGE
    page.write_text(filled(page.read_text(encoding="utf-8"), ROOT / RESULTS), encoding="utf-8")


if __name__ == "__main__":
    main()

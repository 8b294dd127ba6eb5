"""Draws docs/images/cold-start.svg from figures on record: python -m tools.cold_start_picture."""

from pathlib import Path

from fedperfit.protocol.system.files import read_json
from fedperfit.simulation.report.plots import history_plot
from fedperfit.simulation.report.svg import on_white

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "docs" / "figures" / "quickstart-tagging.json"
"""Of metrics.json of `fedperfit simulate`, what the picture and the README's table show."""
PICTURE = ROOT / "docs" / "images" / "cold-start.svg"


def picture() -> str:
    """The report's plot of cold start, as a file."""
    return on_white(history_plot(read_json(FIGURES)))


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")

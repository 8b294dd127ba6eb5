"""Draws docs/images/cold-start.svg from figures on record: python -m tools.cold_start_picture."""

from pathlib import Path

from fedperfit.protocol.system.files import read_json
from fedperfit.simulation.report.plots import history_plot

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "docs" / "figures" / "quickstart-tagging.json"
"""Of metrics.json of `fedperfit simulate`, what the picture and the README's table show."""
PICTURE = ROOT / "docs" / "images" / "cold-start.svg"


def picture() -> str:
    """The report's plot of cold start, on white so that it is read on dark pages too."""
    plot = history_plot(read_json(FIGURES))
    opening = plot.index(">", plot.index("<svg")) + 1
    return plot[:opening] + '<rect width="100%" height="100%" fill="#ffffff"/>' + plot[opening:]


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")

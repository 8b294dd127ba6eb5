"""Runs side by side over simulated time: what rounds that wait for nobody gain where devices are unlike."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NotRequired

from rich.markup import escape
from rich.table import Table
from typing_extensions import TypedDict

from fedperfit.protocol.settings.forms import read_form
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_atomic
from fedperfit.simulation.run.summary import METRICS, run_settings


class Score(TypedDict):
    """A score with its 95 % interval."""

    value: float
    low: float
    high: float


class Moment(TypedDict):
    """What the collective shift was worth at one moment of simulated time."""

    round: int
    seconds: float
    metrics: dict[str, Score]


Times = TypedDict(
    "Times", {"task": str, "main": str, "lower-is-better": bool, "time": NotRequired[list[Moment]]}
)
"""Figures of a run over simulated time."""


def read_times(folders: Sequence[Path]) -> dict[str, Times]:
    """Read the figures of runs that simulated time.

    Args:
        folders: Folders of finished runs.

    Returns:
        Figures by folder, as it was named, in the order given.

    Raises:
        InputError: A folder holds no run of `simulate`, a run is not finished or simulated no time, its
            figures are broken, or the runs are of several tasks.
    """
    runs: dict[str, Times] = {}
    for folder in folders:
        run_settings(folder)
        if not (folder / METRICS).exists():
            raise InputError(
                f"{folder}: the run has not ended; go on with: fedperfit simulate --resume --run-dir {folder}"
            )
        runs[str(folder)] = run = read_form(folder / METRICS, Times)
        if not run.get("time"):
            raise InputError(f"{folder} simulated no time: run it with --set device-seconds=60")
        if any(run["main"] not in moment["metrics"] for moment in run["time"]):
            raise InputError(f"{folder / METRICS}: time: lacks the main metric")
    tasks = sorted({run["task"] for run in runs.values()})
    if len(tasks) > 1:
        raise InputError(f"the runs are of several tasks: {', '.join(tasks)}")
    return runs


def draw(runs: Mapping[str, Times], path: Path) -> None:
    """Draw scores over simulated time.

    Args:
        runs: What `read_times` returned.
        path: Picture to write, .svg or .png.

    Raises:
        InputError: The picture is to be neither.
    """
    if path.suffix not in (".svg", ".png"):
        raise InputError(f"{path}: expected a name that ends in .svg or .png")

    from fedperfit.simulation.report.plots import times_plot
    from fedperfit.simulation.report.svg import on_white

    picture = times_plot(runs)
    write_atomic(path, picture.png() if path.suffix == ".png" else on_white(picture).encode())


def times_table(runs: Mapping[str, Times]) -> Table:
    """Return what each run came to, and in how much simulated time, for the terminal.

    Args:
        runs: What `read_times` returned.
    """
    main = str(next(iter(runs.values()))["main"])
    table = Table(title="the collective shift over simulated time, 95 % intervals over users")
    for head in ("run", "rounds", "simulated seconds", f"{main} at the start", f"{main} at the end"):
        table.add_column(head, justify="left" if head == "run" else "right")
    for name, run in runs.items():
        last = run["time"][-1]
        ends = [point["metrics"][main] for point in (run["time"][0], last)]
        scores = [f"{end['value']:.3f} ({end['low']:.3f}-{end['high']:.3f})" for end in ends]
        table.add_row(escape(name), str(last["round"]), f"{last['seconds']:,.0f}", *scores)
    return table

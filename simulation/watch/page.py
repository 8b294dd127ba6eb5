"""The page of a run, made from the state that its events tell."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fedperfit.simulation.cluster.pace import span, time_left
from fedperfit.simulation.report.html import Noted, Row, Table, estimate, render
from fedperfit.simulation.report.svg import COLLECTIVE, legend_below, svg
from fedperfit.simulation.watch.state import RunState

REFRESH_SECONDS = 5
"""Seconds after which the page of an unfinished run asks again."""
_QUIET_SECONDS = 60.0
"""Seconds without an event after which the page says so."""
_INTERVAL = {"value", "low", "high"}


def page(name: str, state: RunState, now: float, settings: Mapping[str, Any], *, report: bool) -> str:
    """The page as HTML.

    Args:
        name: Name of the run folder.
        state: What the events tell.
        now: Time, in seconds since 1970.
        settings: The run's settings; empty before they are written.
        report: Whether the folder holds a report.
    """
    return render(
        "watch.html",
        title=f"fedperfit watch: {name}",
        name=name,
        headline=_headline(state),
        subline=_subline(state, now),
        refresh=0 if state.done else REFRESH_SECONDS,
        report=report,
        work=_work(state.work) if not state.done else None,
        phases=_phases(state, now),
        losses=_losses(state),
        rounds=_rounds(state),
        trials=_trials(state),
        figures=_figures(state.figures),
        latest=_latest(state),
        settings={key: ", ".join(map(str, v)) if isinstance(v, list) else v for key, v in settings.items()},
    )


def _headline(state: RunState) -> str:
    if state.started is None:
        return "Nothing has happened yet"
    if state.failure:
        return f"Failed: {state.failure}"
    if state.done:
        return "Done"
    open_phases = [name for name, phase in state.phases.items() if phase.ended is None]
    return f"At work: {open_phases[-1]}" if open_phases else "At work"


def _subline(state: RunState, now: float) -> str:
    if state.started is None:
        return "The page shows what happens as soon as it does."
    if state.done:
        return f"It took {span(state.last - state.started)} since it was begun or resumed."
    quiet = now - state.last
    silent = f" No event for {span(quiet)}: is it still running?" if quiet > _QUIET_SECONDS else ""
    return f"{span(now - state.started)} since it was begun or resumed.{silent}"


def _work(event: Mapping[str, Any]) -> dict[str, Any] | None:
    if not event:
        return None
    return {**{key: event[key] for key in ("done", "total", "last")}, "left": time_left(event)}


def _phases(state: RunState, now: float) -> Table | None:
    rows = [
        Row([name, str(phase.clients), str(phase.answered), span((phase.ended or now) - phase.started)])
        for name, phase in state.phases.items()
    ]
    return Table(["phase", "clients", "answered", "time"], rows) if rows else None


def _losses(state: RunState) -> Markup | None:
    curves = {
        phase: [(number, one["loss"]) for number, one in sorted(rounds.items()) if one["loss"] is not None]
        for phase, rounds in state.rounds.items()
    }
    curves = {phase: points for phase, points in curves.items() if points}
    if not curves:
        return None

    def draw(axes: Axes) -> None:
        for number, (phase, points) in enumerate(curves.items()):
            colour = COLLECTIVE if not number else f"C{number}"
            axes.plot(*zip(*points, strict=True), "o-", color=colour, ms=4, label=phase)
        axes.set_xlabel("round")
        axes.set_ylabel("training loss")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(curves) > 1:
            legend_below(axes, columns=3)

    return svg("Training loss per round", draw)


def _rounds(state: RunState) -> Table | None:
    rows = [
        Row(
            [
                f"{phase} {number} of {one['rounds']}",
                str(one["admitted"]),
                str(one["dropped"]),
                "" if one["loss"] is None else f"{one['loss']:.4f}",
                f"{one['down']:,}",
                f"{one['up']:,}",
            ]
        )
        for phase, rounds in state.rounds.items()
        for number, one in sorted(rounds.items())
    ]
    return Table(["round", "updates", "dropped", "loss", "bytes down", "bytes up"], rows) if rows else None


def _trials(state: RunState) -> Table | None:
    best = max((one["score"] for one in state.trials), default=0.0)
    rows = [
        Row(
            [f"{one['learning-rate']:g}", str(one["epochs"]), f"{one['score']:.3f}", f"{one['without']:.3f}"],
            best=one["score"] == best,
        )
        for one in state.trials
    ]
    return Table(["rate", "epochs", "score", "without a personal shift"], rows) if rows else None


def _figures(figures: Mapping[str, float]) -> Table | None:
    """Final figures, each with its interval where it has one."""
    groups: dict[str, dict[str, float]] = {}
    rows: list[Row] = []
    for path, value in figures.items():
        name, _, end = path.rpartition("/")
        if end in _INTERVAL:
            groups.setdefault(name, {})[end] = value
    for name, about in groups.items():
        if set(about) == _INTERVAL:
            rows.append(Row([name.replace("/metrics/", "/"), estimate(about)]))
    for path, value in figures.items():
        if path.rpartition("/")[2] not in {*_INTERVAL, "user-mean"}:
            cells: list[str | Noted] = [path, f"{value:,.6g}"]
            rows.append(Row(cells))
    return Table(["figure", "value"], rows) if rows else None


def _latest(state: RunState) -> Table | None:
    rows = [
        Row([f"{event['time'] - (state.started or event['time']):.0f} s", _said(event)])
        for event in reversed(state.latest)
    ]
    return Table(["", "event"], rows, text=True) if rows else None


def _said(event: Mapping[str, Any]) -> str:
    told = [
        f"{key} {_short(value)}"
        for key, value in event.items()
        if key not in ("event", "time", "run", "kinds")
    ]
    return " · ".join([str(event["event"]), *told])


def _short(value: object) -> object:
    return f"{value:,.6g}" if isinstance(value, float) else value

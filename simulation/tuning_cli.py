"""The commands `fedperfit tune` and `tune-prior`."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from fedperfit.cloud.tracking.names import Track
from fedperfit.protocol.settings.assignments import parse_assignments, parse_options
from fedperfit.protocol.settings.options import setting_option
from fedperfit.protocol.system.commands import going_on, stoppable
from fedperfit.protocol.system.errors import InputError, count_of
from fedperfit.protocol.trust.published import FILE_NAME
from fedperfit.simulation.cluster.options import ActorCpus, ActorGpus, RayAddress, Workers, asked, typed
from fedperfit.simulation.run.settings import TuneSettings
from fedperfit.simulation.study_folder import (
    TUNED_ON,
    check_begun,
    check_finished,
    check_named,
    check_new,
    taken_back_if_refused,
)

_Number = TypeVar("_Number", int, float)


@stoppable
def tune(
    run: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of a finished run: its settings are taken, and personal shifts are fitted on its "
            "collective shift; without it they are fitted on the base model."
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Preset by name or a .toml file; `quickstart` without a run.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="Settings, e.g. --set task=LaMP_3.")
    ] = None,
    rates: Annotated[str | None, setting_option(TuneSettings, "rates")] = None,
    epochs: Annotated[str | None, setting_option(TuneSettings, "epochs")] = None,
    users: Annotated[int | None, setting_option(TuneSettings, "users")] = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder of settings and events; new by default: runs/tune-TIME."),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the tuning in --run-dir, killed or not.")] = False,
    workers: Workers = 1,
    ray_address: RayAddress = "",
    actor_cpus: ActorCpus = None,
    actor_gpus: ActorGpus = None,
    track: Track = None,
) -> None:
    """Choose the personal learning rate and epochs on validation data.

    Uses the histories of others only (older items to fit, the latest quarter to score), so that no
    target user's question takes part in the choice. Stopped by Ctrl-C or a kill, it goes on with --resume.

    Example: fedperfit tune runs/finished --rates 1e-3,3e-3 --epochs 2,4
    """
    console = Console()
    request = asked(workers, ray_address, actor_cpus, actor_gpus)
    options = parse_options(TuneSettings, {"rates": rates, "epochs": epochs, "users": users})
    changes = options | parse_assignments(TuneSettings, setting)
    if run is not None and preset is not None:
        raise InputError("--preset: the settings are those of the run that is named")
    folder = (run_dir or Path("runs") / f"tune-{time.strftime('%Y%m%d-%H%M%S')}").resolve()
    settings = None
    if resume:
        check_begun(run_dir, "tuning")
        if changes or run is not None or preset is not None:
            raise InputError("--resume takes the settings of the tuning: leave the other options out")
    else:
        check_new(folder, resumable=True, beside=TUNED_ON)
        if run is None:
            settings = TuneSettings.read(preset or "quickstart", changes)
            check_named(settings.data, settings.base_model)
        else:
            check_finished(run)

    from fedperfit.cloud.tracking.sink import tracked
    from fedperfit.protocol.trust.release_file import read_release
    from fedperfit.simulation.run.tuning import begin, run_tuning, settings_of_run

    if settings is not None:
        begin(folder, settings)
    elif run is not None:
        begin(folder, settings_of_run(run, changes), read_release(run / FILE_NAME).to_bytes())
    again = typed(None if workers == 1 else workers, ray_address, actor_cpus, actor_gpus)
    with (
        going_on(console, "fedperfit", "tune", "--resume", "--run-dir", str(folder), **again, track=track),
        taken_back_if_refused(folder, new=not resume),
        tracked(track, "tune") as follow,
    ):

        def heard(event: dict[str, Any]) -> None:
            follow(event)
            if event["event"] == "trial":
                console.print(
                    f"rate {event['learning-rate']:g}  epochs {event['epochs']}  score {event['score']:.3f}"
                    f"  (without a personal shift {event['without']:.3f})",
                    highlight=False,
                )

        run_tuning(folder, heard, request)


@stoppable
def tune_prior(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run with people-prior=true.")],
    strengths: Annotated[
        str, typer.Option(help="Strengths to try, separated by commas.")
    ] = "0.05,0.15,0.6,2.4,10,40",
    items: Annotated[str, typer.Option(help="Numbers of items that people are fitted on.")] = "2,8",
    users: Annotated[int, typer.Option(min=1, help="Others who are fitted, at most.")] = 40,
) -> None:
    """Choose the strength of a prior over people on a run's others.

    Each is fitted under the prior on a few items and scored on the latest quarter, so that no target
    user's question takes part in the choice. Real people may need a prior many times as strong as those
    of the world do.

    Example: fedperfit tune-prior runs/prior
    """
    tried, lengths = _numbers(strengths, float), _numbers(items, int)
    check_finished(run)

    from fedperfit.simulation.finished.prior_strength import choose, try_strengths

    console, trials = Console(), []
    for trial in try_strengths(run, tried, lengths, users):
        trials.append(trial)
        console.print(
            f"{count_of(trial.items, 'item')}  strength {trial.strength:g}  loss {trial.loss:.4f}  "
            f"(without a personal shift {trial.without:.4f}; {count_of(trial.people, 'person', 'people')})",
            highlight=False,
        )
    tried, chosen = sorted({trial.strength for trial in trials}), choose(run, trials)
    edge = {tried[0]: "; none lower was tried", tried[-1]: "; none higher was tried"}.get(chosen, "")
    console.print(f"lowest loss in all: --set prior-strength={chosen:g}{edge}", highlight=False)


def _numbers(text: str, kind: Callable[[str], _Number]) -> list[_Number]:
    try:
        numbers = [kind(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(0 < number < math.inf for number in numbers):
        raise InputError(f"{text!r}: expected positive numbers, separated by commas")
    return numbers

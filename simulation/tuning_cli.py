"""The command `fedperfit tune`."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from fedperfit.cloud.tracking.names import Track
from fedperfit.protocol.settings.assignments import parse_assignments, parse_options
from fedperfit.protocol.settings.options import setting_option
from fedperfit.simulation.cluster.options import ActorCpus, ActorGpus, RayAddress, Workers, asked
from fedperfit.simulation.run.settings import TuneSettings


def tune(
    preset: Annotated[str, typer.Option(help="Preset by name or a .toml file.")] = "quickstart",
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="Settings, e.g. --set task=LaMP_3.")
    ] = None,
    rates: Annotated[str | None, setting_option(TuneSettings, "rates")] = None,
    epochs: Annotated[str | None, setting_option(TuneSettings, "epochs")] = None,
    users: Annotated[int | None, setting_option(TuneSettings, "users")] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder of settings and events; new by default: runs/tune-TIME.")
    ] = None,
    workers: Workers = 1,
    ray_address: RayAddress = "",
    actor_cpus: ActorCpus = None,
    actor_gpus: ActorGpus = None,
    track: Track = None,
) -> None:
    """Choose the personal learning rate and epochs on validation data.

    Uses the histories of others only (older items to fit, the latest quarter to score), so that no
    target user's question takes part in the choice.
    """
    from fedperfit.cloud.tracking.sink import tracked
    from fedperfit.simulation.run.tuning import run_tuning

    console = Console()
    options = parse_options(TuneSettings, {"rates": rates, "epochs": epochs, "users": users})
    settings = TuneSettings.read(preset, options | parse_assignments(TuneSettings, setting))
    folder = (run_dir or Path("runs") / f"tune-{time.strftime('%Y%m%d-%H%M%S')}").resolve()
    with tracked(track, "tune") as follow:

        def heard(event: dict[str, Any]) -> None:
            follow(event)
            if event["event"] == "trial":
                console.print(
                    f"rate {event['learning-rate']:g}  epochs {event['epochs']}  score {event['score']:.3f}"
                    f"  (without a personal shift {event['without']:.3f})",
                    highlight=False,
                )

        run_tuning(folder, settings, heard, asked(workers, ray_address, actor_cpus, actor_gpus))

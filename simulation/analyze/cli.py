"""The command `fedperfit analyze`."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from fedperfit.cloud.tracking.names import Track
from fedperfit.protocol.settings.assignments import parse_assignments, parse_options
from fedperfit.protocol.settings.options import SET_HELP, setting_option
from fedperfit.protocol.system.commands import console as wide_console
from fedperfit.protocol.system.commands import going_on, stoppable
from fedperfit.protocol.system.errors import InputError, count_of
from fedperfit.simulation.analyze.settings import AnalyzeSettings
from fedperfit.simulation.cluster.options import ActorCpus, ActorGpus, RayAddress, Workers, asked, typed
from fedperfit.simulation.study_folder import check_begun, check_named, check_new, taken_back_if_refused
from fedperfit.simulation.world.build import WORLD


@stoppable
def analyze(
    tasks: Annotated[str | None, setting_option(AnalyzeSettings, "tasks")] = None,
    base_model: Annotated[str | None, setting_option(AnalyzeSettings, "base_model")] = None,
    data: Annotated[str | None, setting_option(AnalyzeSettings, "data")] = None,
    users: Annotated[int | None, setting_option(AnalyzeSettings, "users")] = None,
    queries: Annotated[int | None, setting_option(AnalyzeSettings, "queries")] = None,
    template: Annotated[str | None, setting_option(AnalyzeSettings, "template")] = None,
    prompt_form: Annotated[str | None, setting_option(AnalyzeSettings, "prompt_form")] = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder of the study; new by default: runs/analyze-TIME."),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the study in --run-dir.")] = False,
    device: Annotated[str | None, setting_option(AnalyzeSettings, "device")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help=SET_HELP.format(example="world-history=32"))
    ] = None,
    workers: Workers = 1,
    ray_address: RayAddress = "",
    actor_cpus: ActorCpus = None,
    actor_gpus: ActorGpus = None,
    track: Track = None,
) -> None:
    """See what users' histories do inside the model, layer by layer: delta-vectors.

    A user's delta-vector is how far the history moves the hidden state of a question's last token. Do few
    directions carry them, so that shifts of low rank can do the same? Is one shared by users, more than
    random text or another's history of the same length explains? Writes report.html, metrics.json and
    results.csv, and says what holds; stopped by Ctrl-C or a kill, it goes on with --resume.

    Example: fedperfit analyze --tasks LaMP_2N,LaMP_3 --data data --base-model FOLDER
    """
    options = {
        **{"tasks": tasks, "base_model": base_model, "data": data, "device": device},
        **{"prompt_form": prompt_form, "template": template, "users": users, "queries": queries},
    }
    given = parse_options(AnalyzeSettings, options) | parse_assignments(AnalyzeSettings, setting)
    settings = AnalyzeSettings.from_flat(given)
    folder = (run_dir or Path("runs") / f"analyze-{time.strftime('%Y%m%d-%H%M%S')}").resolve()
    if resume:
        check_begun(run_dir, "study")
        if given:
            raise InputError("--resume takes the settings of the study: leave the other options out")
    else:
        check_new(folder, resumable=True, beside=WORLD)
        check_named(settings.data, settings.base_model)

    from fedperfit.cloud.tracking.sink import tracked
    from fedperfit.simulation.analyze.page import REPORT, conclusions, pictures, terminal_table
    from fedperfit.simulation.analyze.study import begin, run_study
    from fedperfit.simulation.cluster.telling import teller

    console = wide_console()
    if not resume:
        begin(folder, settings)
    started = time.monotonic()
    again = typed(None if workers == 1 else workers, ray_address, actor_cpus, actor_gpus)
    with (
        going_on(console, "fedperfit", "analyze", "--resume", "--run-dir", str(folder), **again, track=track),
        taken_back_if_refused(folder, new=not resume),
        console.status("reading users and model …") as status,
        tracked(track, "analyze", pictures) as follow,
    ):
        tell = teller(console, status)

        def heard(event: dict[str, Any]) -> None:
            follow(event)
            if event["event"] != "work":
                return
            done, of = event["done"], event["total"]
            line = (
                f"{event['last']}: {done} of {count_of(of, 'user')} after {time.monotonic() - started:.0f} s"
            )
            tell(line if done < of else f"{line}; figures …")

        summary = run_study(folder, heard, asked(workers, ray_address, actor_cpus, actor_gpus))
    for name, about in summary["tasks"].items():
        console.print(terminal_table(name, about))
        for line in conclusions(about):
            console.print(line, markup=False, soft_wrap=True)
    console.print(f"report: {folder / REPORT}", soft_wrap=True, markup=False)

"""`fedperfit analyze`."""

import time
from pathlib import Path
from typing import Annotated

import typer

from fedperfit.protocol.system.commands import console as wide_console


def analyze(
    tasks: Annotated[str, typer.Option(help="LaMP tasks, separated by commas.")] = "LaMP_2M,LaMP_3",
    base_model: Annotated[str, typer.Option(help="Folder, hub name, or `embedded`.")] = "embedded",
    data: Annotated[
        str, typer.Option(help="Folder with a task's LaMP files or one such folder per task, or `world`.")
    ] = "world",
    users: Annotated[int, typer.Option(help="Target users at most; no rank can be higher.")] = 24,
    queries: Annotated[
        int, typer.Option(help="Questions at most, over which a user's vector is a mean.")
    ] = 8,
    template: Annotated[
        str,
        typer.Option(help="How history is shown: `sentences`, LaMP's wording, or `pairs`, solved questions."),
    ] = "sentences",
    prompt_form: Annotated[str, typer.Option(help="`lamp`, the benchmark's questions, or `oppu`.")] = "lamp",
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder of the study; new by default: runs/analyze-TIME.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
) -> None:
    """See what users' histories do inside the model, layer by layer: delta-vectors.

    A user's delta-vector is how far the history moves the hidden state of a question's last token. Do few
    directions carry them, so that shifts of low rank can do the same? Is one shared by users, more than
    random text or another's history of the same length explains? Writes report.html, metrics.json and
    results.csv, and says what holds.

    Example: fedperfit analyze --tasks LaMP_2N,LaMP_3 --data data --base-model FOLDER
    """
    from fedperfit.simulation.analyze.page import REPORT, conclusions, terminal_table
    from fedperfit.simulation.analyze.settings import AnalyzeSettings
    from fedperfit.simulation.analyze.study import run_study

    settings = AnalyzeSettings(
        tasks=[word.strip() for word in tasks.split(",") if word.strip()],
        base_model=base_model,
        data=data,
        device=device,
        prompt_form=prompt_form,
        template=template,
        users=users,
        queries=queries,
    )
    console = wide_console()
    folder = (run_dir or Path("runs") / f"analyze-{time.strftime('%Y%m%d-%H%M%S')}").resolve()
    started = shown = time.monotonic()
    with console.status("reading users and model …") as status:

        def change(task: str, done: int, of: int) -> None:
            nonlocal shown
            line = f"{task}: {done} of {of} users after {time.monotonic() - started:.0f} s"
            status.update(line if done < of else f"{line}; figures …")
            if not console.is_terminal and time.monotonic() - shown > 60:
                shown = time.monotonic()
                console.print(line)

        summary = run_study(folder, settings, change)
    for name, about in summary["tasks"].items():
        console.print(terminal_table(name, about))
        for line in conclusions(about):
            console.print(line, markup=False, soft_wrap=True)
    console.print(f"report: {folder / REPORT}", soft_wrap=True)

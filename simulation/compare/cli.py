"""`fedperfit compare`."""

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedperfit.protocol.system.commands import console as wide_console
from fedperfit.protocol.system.errors import InputError

if TYPE_CHECKING:
    from fedperfit.simulation.compare.study import Progress


def compare(
    tasks: Annotated[str, typer.Option(help="LaMP tasks, separated by commas.")] = "LaMP_2M",
    base_model: Annotated[str, typer.Option(help="Folder, hub name, or `embedded`.")] = "embedded",
    data: Annotated[
        str, typer.Option(help="Folder with a task's LaMP files or one such folder per task, or `world`.")
    ] = "world",
    methods: Annotated[
        str, typer.Option(help="Methods by name, separated by commas; all by default. See --list-methods.")
    ] = "",
    method_file: Annotated[
        list[Path] | None, typer.Option(help="A Python file with a Method of your own; its rows join in.")
    ] = None,
    users: Annotated[int, typer.Option(help="Target users at most.")] = 12,
    others: Annotated[int, typer.Option(help="Other users at most: collective parts, validation.")] = 40,
    seeds: Annotated[str, typer.Option(help="Of training, separated by commas; 0,1,2 by default.")] = "",
    draws: Annotated[int, typer.Option(help="Random draws of hyper-parameters, for each method.")] = 20,
    values_of: Annotated[
        Path | None,
        typer.Option(help="A comparison's folder: take the hyper-parameters it chose for these tasks."),
    ] = None,
    validation_users: Annotated[
        int,
        typer.Option(
            help="Of the others, those the draws are scored on; 0 is as many as have 80 questions, or half."
        ),
    ] = 0,
    history_lengths: Annotated[
        str, typer.Option(help="Cold start: history items. `none` leaves this part out.")
    ] = "0,1,2,4,8,16,32,64",
    collective_sizes: Annotated[
        str, typer.Option(help="Cold start: other users; all is added. `none` leaves this part out.")
    ] = "10,20,50",
    curve_users: Annotated[int, typer.Option(help="Target users of the cold-start curves.")] = 8,
    prompt_form: Annotated[str, typer.Option(help="`lamp`, the benchmark's questions, or `oppu`.")] = "lamp",
    encoder: Annotated[
        str,
        typer.Option(
            help="Sentence encoder, a folder or hub name, for CHAMELEON's selection of items; by default the "
            "base model."
        ),
    ] = "",
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder of the comparison; new by default: runs/compare-TIME.")
    ] = None,
    resume: Annotated[
        bool, typer.Option(help="Go on with the one in --run-dir, with more --methods or --seeds if named.")
    ] = False,
    workers: Annotated[
        int, typer.Option(help="Processes side by side; 0 is one per core that has room.")
    ] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
    list_methods: Annotated[bool, typer.Option(help="List the methods and end.")] = False,
) -> None:
    """Compare methods of personalization on the same model, users, items and seeds.

    Every method's hyper-parameters come from the same random search on users who are no targets. Writes
    report.html, metrics.json, results.csv and LaMP prediction files; stopped by Ctrl-C or a kill, it goes
    on with --resume. Intervals are bootstrapped over users.

    Example: fedperfit compare --methods base,rag-2,oppu,perfit --seeds 0 --users 8
    """
    from fedperfit.protocol.tasks import task_by_name
    from fedperfit.simulation.compare.method import registry
    from fedperfit.simulation.compare.page import REPORT, standing, terminal_table
    from fedperfit.simulation.compare.settings import CompareSettings
    from fedperfit.simulation.compare.study import SETTINGS, begin, extend, run_comparison

    console = wide_console()
    files = [path.resolve() for path in method_file or []]
    if list_methods:
        for name, method in registry(files).items():
            console.print(f"[bold]{name}[/bold]  {method.title}")
        return
    if resume:
        if run_dir is None or not (run_dir / SETTINGS).exists():
            raise InputError("--resume needs --run-dir, the folder of a comparison that was begun")
        folder = run_dir
        if methods or seeds:
            extend(folder, _words(methods), _numbers("seeds", seeds))
    else:
        folder = run_dir or Path("runs") / f"compare-{time.strftime('%Y%m%d-%H%M%S')}"
        found = registry(files)
        named = _words(tasks)
        suiting = [n for n, m in found.items() if any(m.suits(task_by_name(task)) for task in named)]
        settings = CompareSettings(
            tasks=named,
            methods=_words(methods) or suiting,
            method_files=[str(path) for path in files],
            base_model=base_model,
            data=data,
            encoder=encoder,
            device=device,
            prompt_form=prompt_form,
            seeds=_numbers("seeds", seeds or "0,1,2"),
            draws=draws,
            values_of=str(values_of.resolve()) if values_of else "",
            validation_users=validation_users,
            others=others,
            users=users,
            history_lengths=_numbers("history-lengths", history_lengths),
            collective_sizes=_numbers("collective-sizes", collective_sizes),
            curve_users=curve_users,
        )
        begin(folder, settings)
    folder = folder.resolve()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with console.status("planning …") as status:

            def start(progress: "Progress") -> None:
                console.print(
                    f"{progress.total} draws and cells left, {progress.workers} processes, folder {folder}",
                    soft_wrap=True,
                )

            shown = 0.0

            def change(progress: "Progress") -> None:
                nonlocal shown
                status.update(_line(progress))
                if not console.is_terminal and time.monotonic() - shown > 60:
                    shown = time.monotonic()
                    console.print(_line(progress))

            summary = run_comparison(folder, workers, start, change)
    except KeyboardInterrupt:
        console.print(f"stopped; go on with: fedperfit compare --resume --run-dir {folder}", soft_wrap=True)
        raise typer.Exit(130) from None
    for name, about in summary["tasks"].items():
        console.print(terminal_table(name, about))
        console.print(standing(about), soft_wrap=True)
    console.print(f"report: {folder / REPORT}", soft_wrap=True)


def _line(progress: "Progress") -> str:
    left = progress.seconds_left
    about = "" if left is None else f", about {left / 60:.0f} min left"
    passed = (time.monotonic() - progress.started) / 60
    return f"{progress.done} of {progress.total} after {passed:.0f} min{about}  {progress.last}"


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(name: str, text: str) -> list[int]:
    """Raises InputError for what is no list of whole numbers."""
    if text.strip() == "none":
        return []
    try:
        return [int(word) for word in _words(text)]
    except ValueError:
        raise InputError(f"{name}={text!r}: expected whole numbers separated by commas") from None

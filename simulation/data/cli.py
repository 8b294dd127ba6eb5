"""Commands `fedperfit data`: fetch LaMP files, look at a folder, hand histories out."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedperfit.protocol.system.errors import InputError, printable
from fedperfit.protocol.system.files import from_home, write_json_lines
from fedperfit.protocol.tasks import AnswerKind, task_by_name
from fedperfit.protocol.tasks.door import admitted_name
from fedperfit.protocol.tasks.remarks import summed_up
from fedperfit.simulation.cluster.scratch import scratch
from fedperfit.simulation.data.download import BASE_URL, LICENCE, Split, download
from fedperfit.simulation.data.lamp import LampData, User, open_lamp
from fedperfit.simulation.data.lamp_files import GROUPS
from fedperfit.simulation.data.participants import tables_of
from fedperfit.simulation.world.build import WORLD, write_world
from fedperfit.simulation.world.settings import WorldSize

data_app = typer.Typer(
    no_args_is_help=True,
    help="Real users' data: the LaMP benchmark, official files or OPPU's processed ones.\n\n"
    f"LaMP's data are under {LICENCE}: not for commercial use, share alike, name the source "
    "(Salemi et al., LaMP: When Large Language Models Meet Personalization).",
)


_SHOWN_PLACES = 8
"""Places of each kind of remark that `show` tells unless all are wanted."""
TaskOption = Annotated[str, typer.Option("--task", help="A task that ships, e.g. LaMP_3, or a TOML file.")]


@data_app.command("download")
def download_command(
    task: TaskOption,
    to: Annotated[
        Path,
        typer.Option("--to", file_okay=False, help="Folder for the files; one task and split per folder."),
    ],
    split: Annotated[
        Split,
        typer.Option(help="user: dev users are new (cold start). time: the same users, later items."),
    ] = Split.USER,
    url: Annotated[
        str, typer.Option("--url", help="Where LaMP's folders are, e.g. a mirror of the official server.")
    ] = BASE_URL,
) -> None:
    """Fetch a task's official train and dev files.

    If it is interrupted, the same command continues. The answers of LaMP's test split are not public, so
    it is not fetched. Some files have gigabytes. Their licence is CC BY-NC-SA 4.0.

    Example: fedperfit data download --task LaMP_3 --to data/LaMP_3
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console) as bars:
        known: dict[str, TaskID] = {}

        def show(name: str, done: int, total: int | None) -> None:
            if name not in known:
                known[name] = bars.add_task(name, total=total)
            bars.update(known[name], completed=done, total=total)

        download(task_by_name(task), to, split=split, base_url=url, progress=show)
    console.print(f"{to}: {task}, {split} split, licence {LICENCE}", soft_wrap=True, markup=False)
    console.print(f"Look at it: fedperfit data show {to} --task {task}", soft_wrap=True, markup=False)


@data_app.command("people")
def people_command(
    task: TaskOption,
    to: Annotated[
        Path, typer.Option("--to", file_okay=False, help="Folder to make; one folder per person in it.")
    ],
    names: Annotated[
        list[str], typer.Argument(help="Names of the people: users of the data, or any names for world.")
    ],
    data: Annotated[
        str, typer.Option(help="Folder with LaMP files, mapping of own data, or `world`.")
    ] = WORLD,
    seed: Annotated[int, typer.Option(help="Seed of the synthetic world.")] = 0,
) -> None:
    """Write users' histories as files, as people have them, to try a deployment with.

    Each person gets TO/NAME/history.jsonl, and questions.jsonl for measuring only.

    Example: fedperfit data people --task LaMP_2M --to people ada ben carl
    """
    for name in names:
        if name in ("", ".", "..") or Path(name).name != name or printable(name) != name:
            raise InputError(f"{name!r}: no name for a person's folder")
    names = [admitted_name(name) for name in names]
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise InputError(f"{twice[0]!r} is named twice: each person has a folder of their own")
    with scratch() as place, tables_of(data, place) as tables:
        root = from_home(data)
        if data == WORLD:
            size = WorldSize(others=1, targets=len(names), new=1, history=64, questions=32)
            root = write_world(place, task_by_name(task), size, seed)
        source = open_lamp(root, task_by_name(task), tables)
        for name, user in _chosen(source, names, anyone=data == WORLD):
            write_json_lines(to / name / "history.jsonl", user.history)
            write_json_lines(to / name / "questions.jsonl", [q for q in user.questions if q["gold"]])
    Console().print(f"{to}: {', '.join(names)}", soft_wrap=True, markup=False)


def _chosen(source: LampData, names: list[str], *, anyone: bool) -> Iterator[tuple[str, User]]:
    """Yield each name with the user of that name, or with targets in turn where the users are made up."""
    if anyone:
        for name, user in zip(names, source.users("targets"), strict=False):
            yield name, source.user("targets", user)
        return
    # In a split by time a user is in both groups, with the group before the name.
    users = {
        user.removeprefix(f"{group}-"): (group, user) for group in GROUPS for user in source.users(group)
    }
    for name in names:
        if name not in users:
            known = ", ".join(list(users)[:5]) + ", …" * (len(users) > 5)
            raise InputError(f"the data have no user {name!r}: there are {known}")
    for name in names:
        yield name, source.user(*users[name])


@dataclass
class _Summary:
    """Counts that `show` prints of one group of users."""

    histories: list[int] = field(default_factory=list)
    questions: list[int] = field(default_factory=list)
    item_labels: Counter[str] = field(default_factory=Counter)
    gold_labels: Counter[str] = field(default_factory=Counter)

    def add(self, user: User, answer: str) -> None:
        self.histories.append(len(user.history))
        self.questions.append(len(user.questions))
        self.item_labels.update(item[answer].strip() for item in user.history)
        self.gold_labels.update(question["gold"].strip() for question in user.questions)


@data_app.command("show")
def show_command(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder with official LaMP files or OPPU's, or the mapping of your own data.",
            show_default=False,
        ),
    ],
    task: TaskOption,
    every_line: Annotated[
        bool, typer.Option("--every-line", help="Tell each line that is remarked on by itself.")
    ] = False,
) -> None:
    """Check a folder's files and print its layout, users, histories, questions and labels.

    `others` are the users whose data train the collective shift, `targets` those who fit a personal
    one. The first look converts the files to tables on disk; later ones are quick.
    """
    console = Console()
    with console.status("reading …"):
        data = open_lamp(folder, task_by_name(task))
        summaries = {group: _summary(data, group) for group in GROUPS}
    table = Table("", *GROUPS, title=escape(f"{folder}: {task}, {data.layout}"))
    table.add_row("users", *(str(len(one.histories)) for one in summaries.values()))
    table.add_row("history: min / median / max", *(_spread(one.histories) for one in summaries.values()))
    table.add_row("questions: min / median / max", *(_spread(one.questions) for one in summaries.values()))
    console.print(table)
    for remark in data.remarks if every_line else summed_up(data.remarks, _SHOWN_PLACES):
        console.print(remark, highlight=False, markup=False, soft_wrap=True)
    if data.task.kind is not AnswerKind.TEXT:
        console.print(_labels(data, summaries))


def _labels(data: LampData, summaries: dict[str, _Summary]) -> Table:
    """Count items and questions per label: the task's own labels first, then any that the data add."""
    table = Table("label", title="labels")
    for group in summaries:
        table.add_column(f"{group}: items", justify="right")
        table.add_column(f"{group}: questions", justify="right")
    counts = [count for one in summaries.values() for count in (one.item_labels, one.gold_labels)]
    known = data.task.labels
    strange = sorted({label for count in counts for label in count} - set(known))
    for label in (*known, *strange):
        mark = "" if label in known else " (not a label of the task)"
        table.add_row(escape(f"{label}{mark}"), *(str(count[label]) for count in counts))
    return table


def _summary(data: LampData, group: str) -> _Summary:
    summary = _Summary()
    for name in data.users(group):
        summary.add(data.user(group, name), data.task.answer)
    return summary


def _spread(counts: list[int]) -> str:
    return f"{min(counts)} / {median(counts):g} / {max(counts)}"

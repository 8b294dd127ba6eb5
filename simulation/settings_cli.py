"""`fedperfit settings` and `fedperfit presets`: what can be set, and what ships set."""

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from fedperfit.cloud.deployment.settings import CloudSettings
from fedperfit.cloud.job.settings import JobSettings
from fedperfit.edge.deployment.home import AgentSettings
from fedperfit.protocol.presets import preset_names, preset_text, read_preset
from fedperfit.protocol.settings.describe import Setting, described, own_settings
from fedperfit.protocol.settings.mistakes import unknown_setting
from fedperfit.protocol.settings.names import key_of
from fedperfit.protocol.settings.options import default_text
from fedperfit.protocol.system.commands import console
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_atomic
from fedperfit.simulation.analyze.settings import AnalyzeSettings
from fedperfit.simulation.audit.settings import AuditSettings
from fedperfit.simulation.communication.settings import CommunicationSettings
from fedperfit.simulation.compare.settings import CompareSettings
from fedperfit.simulation.run.settings import RunSettings, TuneSettings

GROUPS: dict[str, list[Setting]] = {
    "every job: fedperfit simulate, tune; fedperfit-cloud init": described(JobSettings),
    "a simulated run: fedperfit simulate, tune": list(own_settings(RunSettings)),
    "fedperfit tune": list(own_settings(TuneSettings)),
    "fedperfit-cloud init": list(own_settings(CloudSettings)),
    "fedperfit compare": described(CompareSettings),
    "fedperfit communication": described(CommunicationSettings),
    "fedperfit analyze": described(AnalyzeSettings),
    "fedperfit audit": list(own_settings(AuditSettings)),
    "an agent's agent.json: fedperfit-edge join": described(AgentSettings),
}
"""Every setting of the system, by the commands that take it; a group inherits what is in the first."""
_GIVEN = "-"
"""Shown for a default where a preset or the user gives the value."""


def settings(
    name: Annotated[str, typer.Argument(help="A setting to explain; all are listed without.")] = "",
) -> None:
    """List every setting with its default and unit, or explain one.

    Example: fedperfit settings personal-rank
    """
    if not name:
        _list()
        return
    groups = {
        group: setting for group, all_ in GROUPS.items() for setting in all_ if setting.key == key_of(name)
    }
    if not groups:
        raise unknown_setting(name, [setting.key for all_ in GROUPS.values() for setting in all_])
    out = console()
    for group, setting in groups.items():
        out.print(f"[bold]{setting.key}[/bold]  ({escape(group)})")
        for label, text in (
            ("meaning", setting.meaning),
            ("values", setting.values),
            ("unit", setting.unit),
            ("default", default_text(setting) or "none: a preset or --set gives it"),
        ):
            out.print(f"  {label:<8} {escape(text)}", soft_wrap=True)


def _list() -> None:
    out = console()
    for group, all_ in GROUPS.items():
        table = Table("setting", "default", "unit", "meaning", title=group, title_justify="left")
        for setting in all_:
            row = (setting.key, default_text(setting) or _GIVEN, setting.unit, setting.meaning)
            table.add_row(*map(escape, row))
        table.columns[0].no_wrap = True
        out.print(table)
    out.print("One of them in full: fedperfit settings NAME")


def presets(
    show: Annotated[
        str, typer.Option("--show", help="A preset to print, with what it leaves at its default.")
    ] = "",
    copy: Annotated[
        tuple[str, Path] | None,
        typer.Option("--copy", metavar="NAME FILE", help="Write a preset to a .toml file, to be edited."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Let --copy replace a file.")] = False,
) -> None:
    """List the presets that ship, with what each is for; or print or copy one.

    Example: fedperfit presets --copy quickstart mine.toml
    """
    if copy:
        _copy(*copy, force=force)
    elif show:
        _show(show)
    else:
        out = console()
        for name in preset_names():
            lines = preset_text(name).splitlines()[1:]
            about = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
            out.print(f"[bold]{name}[/bold]  {escape(about)}")


def _show(name: str) -> None:
    text, given = preset_text(name), read_preset(name)
    left = [setting for setting in described(RunSettings) if setting.key not in given]
    lines = [f"{setting.key} = {default_text(setting)}  # {setting.meaning}" for setting in left]
    typer.echo("\n".join([text.rstrip(), "", "# Left at their defaults:", *(f"# {line}" for line in lines)]))


def _copy(name: str, file: Path, *, force: bool) -> None:
    text = preset_text(name)
    if file.exists() and not force:
        raise InputError(f"{file}: is there already; --force replaces it")
    write_atomic(file, text.encode())
    console().print(
        f"wrote {file}; use it with --preset {shlex.quote(str(file))}", soft_wrap=True, markup=False
    )

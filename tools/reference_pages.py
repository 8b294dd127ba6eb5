"""Hook of mkdocs: reference pages made from the programs and the package while the docs are built."""

from collections.abc import Callable
from typing import Any

import typer
from typer.cli import get_docs_for_click

import fedperfit
from fedperfit.cloud.cli.main import app as cloud
from fedperfit.edge.cli.main import app as edge
from fedperfit.protocol.settings.describe import Setting
from fedperfit.protocol.settings.options import default_text
from fedperfit.simulation.cli import app as simulation
from fedperfit.simulation.settings_cli import GROUPS

PROGRAMS = {"fedperfit": simulation, "fedperfit-edge": edge, "fedperfit-cloud": cloud}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put what is generated in place of the comment that names it; mkdocs calls this for every page."""
    for name, generate in GENERATED.items():
        marker = f"<!-- generated: {name} -->"
        if marker in markdown:
            markdown = markdown.replace(marker, generate())
    return markdown


def commands_page() -> str:
    """Every command of the three programs with its arguments and options, one heading each."""
    return "\n".join(_program(name, app) for name, app in PROGRAMS.items())


def api_page() -> str:
    """One directive of mkdocstrings for each name that `import fedperfit` gives."""
    return "\n\n".join(f"::: fedperfit.{name}" for name in getattr(fedperfit, "__all__", ()))


def settings_page() -> str:
    """One table for each group of settings, as `fedperfit settings` lists them."""
    return "\n\n".join(f"## For {title}\n\n{_table(group)}" for title, group in GROUPS.items())


def _table(settings: list[Setting]) -> str:
    lines = ["| setting | default | values | unit | meaning |", "|---|---|---|---|---|"]
    for one in settings:
        cells = (f"`{one.key}`", default_text(one) or "given by a preset", one.values, one.unit, one.meaning)
        escaped = (cell.replace("|", "&#124;").replace("<", "&lt;") for cell in cells)
        lines.append(f"| {' | '.join(escaped)} |")
    return "\n".join(lines)


def _program(name: str, app: typer.Typer) -> str:
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name=name)
    return get_docs_for_click(obj=command, ctx=context, name=name, indent=1)


GENERATED: dict[str, Callable[[], str]] = {
    "commands": commands_page,
    "settings": settings_page,
    "api": api_page,
}

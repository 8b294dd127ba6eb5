"""`fedperfit-edge`: one person's side."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedperfit.edge.cli import agent as agent_cli
from fedperfit.edge.cli import serve as serve_cli
from fedperfit.protocol.system.commands import run

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="One person's side of fedperfit. `join` takes part in a federation from this machine; `serve`, "
    "`generate`, `learn`, `explain`, `sent` and `forget` ask the agent that it runs. Your history, your "
    "personal shift and generated texts never leave this machine.",
)

for command in (
    *(agent_cli.join, agent_cli.agent, agent_cli.explain, agent_cli.sent, agent_cli.learn),
    serve_cli.serve,
    *(agent_cli.generate, agent_cli.ask, agent_cli.forget, agent_cli.rotate_key),
):
    app.command()(command)

Folder = Annotated[Path, typer.Argument(help="The client's own folder.")]
Release = Annotated[Path, typer.Option(help="release.safetensors of a run: the collective shift.")]
BaseName = Annotated[str, typer.Option("--base-model", help="Folder, hub name, or `embedded`.")]
SLOT = "full"


@app.command()
def show(folder: Folder) -> None:
    """What the folder holds: task, items, kept personal shifts."""
    from fedperfit.edge.agent.agent import VAULT
    from fedperfit.edge.agent.history import read_history
    from fedperfit.edge.vault.vault import Vault

    history = read_history(folder)
    kept = Vault(folder / VAULT).slots()
    console = Console()
    console.print(f"{history.name}: {history.task.name}, {len(history.items)} items", highlight=False)
    console.print(f"metrics shared: {'yes' if history.shares_metrics else 'no'}")
    console.print(f"personal shifts: {', '.join(kept) or 'none'}")


@app.command()
def personalize(
    folder: Folder,
    release: Release,
    base_model: BaseName = "embedded",
    rank: Annotated[int, typer.Option(help="Rank of the personal shift.")] = 4,
    epochs: Annotated[int, typer.Option(help="Passes over the history.")] = 6,
    learning_rate: Annotated[
        float, typer.Option(help="Peak rate; about 1e-4 for a 7B model, 5e-3 for a tiny one.")
    ] = 5e-3,
    prompt_form: Annotated[str, typer.Option(help="`lamp`, or `oppu` for large models.")] = "lamp",
) -> None:
    """Fit a personal shift on top of a release, from the history in FOLDER, and keep it there."""
    from fedperfit.edge.agent.agent import Agent
    from fedperfit.protocol.messages.settings import PersonalSettings, TrainingSettings
    from fedperfit.protocol.model.base_model import load
    from fedperfit.protocol.trust.release import read_release

    training = TrainingSettings(
        seed=0,
        epochs=epochs,
        batch_size=8,
        learning_rate=learning_rate,
        weight_decay=0.01,
        clip_norm=1.0,
        max_items=0,
        prompt_form=prompt_form,
    )
    found = read_release(release)
    agent = Agent(folder, load(base_model))
    personal = PersonalSettings(rank=rank, additive=False, slot=SLOT)
    done = agent.personalize(found.packed, personal, training)
    loss = done.metrics["loss"]
    assert isinstance(loss, float)
    Console().print(f"fitted on {done.items} items, last loss {loss / done.items:.3f}; kept in {folder}")


@app.command()
def answer(
    folder: Folder,
    question: Annotated[str, typer.Argument(help="A question of the task, in LaMP's form.")],
    release: Release,
    base_model: BaseName = "embedded",
    prompt_form: Annotated[str, typer.Option(help="As in `personalize`.")] = "lamp",
) -> None:
    """Answer a question at each stage: base model, collective shift, directions if any, personal shift."""
    from fedperfit.edge.agent.agent import Agent, OpenedRelease
    from fedperfit.protocol.messages.settings import STAGES, EvaluationSettings
    from fedperfit.protocol.model.base_model import load
    from fedperfit.protocol.trust.release import read_release

    found = read_release(release)
    agent = Agent(folder, load(base_model))
    opened = OpenedRelease.of(found.to_bytes(), agent.base)
    for stage in STAGES:
        if stage == "directions" and opened.directions is None:
            continue
        settings = EvaluationSettings(
            stage=stage, slot=SLOT, additive=False, batch_size=1, prompt_form=prompt_form
        )
        print(f"{stage:>10}: {agent.answer(opened, question, settings)}")


def main() -> None:
    """The console script."""
    run(app, "fedperfit-edge")


if __name__ == "__main__":
    main()

"""`fedperfit-edge`: one person's side."""

from pathlib import Path
from typing import Annotated

import typer

from fedperfit.edge.cli import agent as agent_cli
from fedperfit.edge.cli import audit as audit_cli
from fedperfit.edge.cli import consent as consent_cli
from fedperfit.edge.cli import doctor as doctor_cli
from fedperfit.edge.cli import explain as explain_cli
from fedperfit.edge.cli import learned as learned_cli
from fedperfit.edge.cli import policy as policy_cli
from fedperfit.edge.cli import serve as serve_cli
from fedperfit.edge.cli import sharing as sharing_cli
from fedperfit.protocol.system.commands import print_line, root, run
from fedperfit.protocol.system.errors import count_of

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="One person's side of fedperfit. `join` takes part in a federation from this machine; `serve`, "
    "`generate`, `learn`, `unlearn`, `explain`, `sent`, `log` and `forget` ask the agent that it runs. Your "
    "history, your personal shift and generated texts never leave this machine.",
)

for command in (
    policy_cli.policy,
    *(
        agent_cli.join,
        agent_cli.trust,
        agent_cli.agent,
        explain_cli.explain,
        audit_cli.sent,
        audit_cli.log,
        agent_cli.learn,
        learned_cli.learned,
        learned_cli.unlearn,
    ),
    *(consent_cli.pause, consent_cli.resume, consent_cli.share_metrics, consent_cli.consent),
    consent_cli.personal_epsilon,
    doctor_cli.doctor,
    serve_cli.serve,
    *(agent_cli.generate, agent_cli.ask, agent_cli.forget, agent_cli.rotate_key),
    sharing_cli.export_shift,
):
    app.command()(command)
app.callback()(root)

Folder = Annotated[Path, typer.Argument(help="The client's own folder.")]
Release = Annotated[
    Path,
    typer.Option(exists=True, dir_okay=False, help="release.safetensors of a run: the collective shift."),
]
BaseName = Annotated[
    str, typer.Option("--base-model", help="Folder, GGUF file, hub name, `smollm2`, or `embedded`.")
]
Preset = Annotated[
    str, typer.Option(help="Where the other settings come from: a preset by name, or a .toml file.")
]


@app.command()
def show(folder: Folder) -> None:
    """What the folder holds: task, items, kept personal shifts."""
    from fedperfit.edge.agent.history import read_history
    from fedperfit.edge.vault.vault import VAULT, Vault

    history = read_history(folder)
    kept = Vault(folder / VAULT).slots()
    items = "items sealed in the vault" if history.sealed else count_of(len(history.items), "item")
    print_line(f"{history.name}: {history.task.name}, {items}")
    for remark in history.remarks:
        print_line(remark)
    print_line(f"metrics shared: {'yes' if history.shares_metrics else 'no'}")
    print_line(f"personal shifts: {', '.join(kept) or 'none'}")


@app.command()
def personalize(
    folder: Folder,
    release: Release,
    base_model: BaseName = "embedded",
    preset: Preset = "quickstart",
    rank: Annotated[int | None, typer.Option(help="Rank of the personal shift; the preset's.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the history; the preset's.")] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Peak rate, about 1e-4 for a 7B model, 5e-3 for a tiny one; the preset's."),
    ] = None,
    prompt_form: Annotated[
        str | None,
        typer.Option(help="`lamp`; `oppu`, for large models; `chat`, for instruct models; the preset's."),
    ] = None,
    personal_epsilon: Annotated[
        float | None,
        typer.Option(
            help="What the shift may tell of any one item, for this fit and later ones; 0: no limit."
        ),
    ] = None,
) -> None:
    """Fit a personal shift on top of a release, from the history in FOLDER, and keep it there."""
    from fedperfit.edge.agent.consent import limit_epsilon
    from fedperfit.edge.deployment.home import Home, client_name
    from fedperfit.protocol.fitting import FittingSettings
    from fedperfit.protocol.settings.assignments import parse_options

    options = {
        **{"personal_rank": rank, "personal_epochs": epochs},
        **{"personal_learning_rate": learning_rate, "prompt_form": prompt_form},
    }
    settings = FittingSettings.of_preset(preset, parse_options(FittingSettings, options))
    client_name(Home(folder))
    training, personal = settings.personal_training(), settings.personal()

    from fedperfit.edge.agent.agent import Agent
    from fedperfit.protocol.model.base_model import load
    from fedperfit.protocol.trust.release_file import read_release

    found = read_release(release)
    if personal_epsilon is not None:
        limit_epsilon(folder, personal_epsilon)
    agent = Agent(folder, load(base_model))
    done = agent.personalize(found.to_bytes(), personal, training)
    loss = done.metrics.get("loss")
    told = f", last loss {loss / done.items:.3f}" if isinstance(loss, float) else ""
    print_line(f"fitted on {count_of(done.items, 'item')}{told}; kept in {folder}")


@app.command()
def answer(
    folder: Folder,
    question: Annotated[str, typer.Argument(help="A question of the task, in LaMP's form.")],
    release: Release,
    base_model: BaseName = "embedded",
    preset: Preset = "quickstart",
    prompt_form: Annotated[str | None, typer.Option(help="As in `personalize`.")] = None,
) -> None:
    """Answer a question at each stage: base model, collective shift, directions if any, personal shift."""
    from fedperfit.edge.deployment.home import Home, client_name
    from fedperfit.protocol.fitting import FittingSettings
    from fedperfit.protocol.settings.assignments import parse_options

    options = parse_options(FittingSettings, {"prompt_form": prompt_form})
    settings = FittingSettings.of_preset(preset, options)
    client_name(Home(folder))

    from fedperfit.edge.agent.agent import Agent
    from fedperfit.edge.agent.opened_release import OpenedRelease
    from fedperfit.protocol.messages.settings import FULL_SLOT, EvaluationSettings, Stage
    from fedperfit.protocol.model.base_model import load
    from fedperfit.protocol.trust.release_file import read_release

    found = read_release(release)
    agent = Agent(folder, load(base_model))
    opened = OpenedRelease.of(found.to_bytes(), agent.base)
    for stage in Stage:
        if stage is Stage.DIRECTIONS and opened.directions is None:
            continue
        evaluation = EvaluationSettings(
            stage=stage,
            slot=FULL_SLOT,
            additive=settings.additive,
            batch_size=1,
            prompt_form=settings.prompt_form,
        )
        print(f"{stage:>10}: {agent.answer(opened, question, evaluation)}")


def main() -> None:
    """Run the console script `fedperfit-edge`."""
    run(app, "fedperfit-edge")


if __name__ == "__main__":
    main()

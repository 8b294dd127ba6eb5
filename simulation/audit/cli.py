"""The command `fedperfit audit`."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from fedperfit.cloud.tracking.names import Track
from fedperfit.protocol.settings.assignments import parse_assignments, parse_options
from fedperfit.protocol.settings.options import SET_HELP, setting_option
from fedperfit.protocol.system.commands import console as wide_console
from fedperfit.protocol.system.commands import going_on, stoppable
from fedperfit.protocol.system.errors import InputError
from fedperfit.simulation.audit.settings import AuditSettings
from fedperfit.simulation.cluster.options import ActorCpus, ActorGpus, RayAddress, Workers, asked, typed
from fedperfit.simulation.study_folder import check_begun, check_named, check_new, taken_back_if_refused
from fedperfit.simulation.world.build import WORLD


@stoppable
def audit(
    out: Annotated[
        Path | None,
        typer.Argument(file_okay=False, help="Folder of the audit; new by default: runs/audit-TIME."),
    ] = None,
    attacks: Annotated[
        str | None,
        typer.Option(help="Attacks by name, separated by commas; all by default. See --list-attacks."),
    ] = None,
    own: Annotated[
        list[Path] | None,
        typer.Option(
            exists=True, dir_okay=False, help="A Python file with an Attack of your own, which joins in."
        ),
    ] = None,
    preset: Annotated[
        str, typer.Option(help="Preset whose federation is attacked, by name or a .toml file.")
    ] = "quickstart",
    base_model: Annotated[str | None, setting_option(AuditSettings, "base_model")] = None,
    data: Annotated[str | None, setting_option(AuditSettings, "data")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help=SET_HELP.format(example="transport-dtype=float32"))
    ] = None,
    resume: Annotated[
        bool, typer.Option(help="Go on with the audit in OUT, with more --attacks if named.")
    ] = False,
    gate: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="A stored result.json: audit under its settings, and fail where an attack tells more.",
        ),
    ] = None,
    list_attacks: Annotated[bool, typer.Option(help="List the attacks and end.")] = False,
    workers: Workers = 1,
    ray_address: RayAddress = "",
    actor_cpus: ActorCpus = None,
    actor_gpus: ActorGpus = None,
    track: Track = None,
) -> None:
    """Attack a federation's own updates and shifts, and report what they tell about people.

    Each attack has a positive control, in which it must succeed, and a null control, in which it must not,
    and intervals over users. Writes report.html for people and result.json for programs; stopped by Ctrl-C
    or a kill, it goes on with --resume. With --gate it ends with an error in one line where an attack tells
    more than the stored intervals allow.

    Example: fedperfit audit runs/votes --attacks dp-mechanism,owner-name --set transport-dtype=sign
    """
    files = [path.resolve() for path in own or []]
    request = asked(workers, ray_address, actor_cpus, actor_gpus)
    options: dict[str, Any] = {"attacks": attacks, "base_model": base_model, "data": data}
    given = parse_options(AuditSettings, options) | parse_assignments(AuditSettings, setting)
    if files:
        given["attack-files"] = [str(path) for path in files]
    if gate is not None and given:
        raise InputError("--gate takes the settings of the stored result: leave the other options out")

    settings = AuditSettings.read(preset, given)
    folder = (out or Path("runs") / f"audit-{time.strftime('%Y%m%d-%H%M%S')}").resolve()
    if resume:
        check_begun(folder, "audit")
        if set(given) - {"attacks"}:
            raise InputError("--resume takes the settings of the audit: leave all but --attacks out")
    elif not list_attacks:
        check_new(folder, resumable=True, beside=WORLD)
        check_named(settings.data, settings.base_model)

    from fedperfit.simulation.audit.attack import attacks_by_name

    console = wide_console()
    if list_attacks:
        for name, attack in attacks_by_name(files).items():
            console.print(f"[bold]{name}[/bold]  {attack.title}")
        return

    from fedperfit.cloud.tracking.sink import tracked
    from fedperfit.simulation.audit.gate import check, read_result, stored_gate
    from fedperfit.simulation.audit.page import REPORT, finding, pictures, terminal_table
    from fedperfit.simulation.audit.study import begin, extend, run_audit
    from fedperfit.simulation.cluster.pace import progress
    from fedperfit.simulation.cluster.telling import teller

    stored = read_result(gate) if gate is not None else None
    if resume:
        extend(folder, given.get("attacks", []))
    else:
        begin(folder, stored_gate(gate) if gate is not None else settings)
    started = time.monotonic()
    again = typed(None if workers == 1 else workers, ray_address, actor_cpus, actor_gpus)
    with (
        going_on(console, "fedperfit", "audit", str(folder), "--resume", **again, track=track),
        taken_back_if_refused(folder, new=not resume),
        console.status("reading people and model …") as status,
        tracked(track, "audit", pictures) as follow,
    ):
        tell = teller(console, status)

        def heard(event: dict[str, Any]) -> None:
            follow(event)
            if event["event"] in ("start", "work"):
                tell(progress(event, time.monotonic() - started))

        result = run_audit(folder, heard, request)
    for about in result["attacks"].values():
        console.print(terminal_table(about))
        console.print(finding(about), markup=False, soft_wrap=True)
    console.print(f"report: {folder / REPORT}", soft_wrap=True, markup=False)
    if stored is not None:
        check(result, stored)
        console.print(f"no attack tells more than in {gate}", soft_wrap=True, markup=False)

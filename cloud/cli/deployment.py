"""`fedperfit-cloud init | up | policy | run`: a federation over an untrusted network."""

import time
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from fedperfit.cloud.deployment.settings import CloudSettings
from fedperfit.cloud.tracking.names import Track
from fedperfit.protocol.settings.assignments import parse_assignments, parse_options
from fedperfit.protocol.settings.options import SET_HELP, setting_option
from fedperfit.protocol.system.commands import console, going_on, print_line
from fedperfit.protocol.system.errors import count_of

Folder = Annotated[Path, typer.Argument(help="The cloud's folder.")]


def init(
    folder: Folder,
    host: Annotated[str | None, setting_option(CloudSettings, "host")] = None,
    port: Annotated[int | None, setting_option(CloudSettings, "port")] = None,
    preset: Annotated[
        str, typer.Option(help="Preset the settings start from; see `fedperfit presets`.")
    ] = "quickstart",
    task: Annotated[str | None, setting_option(CloudSettings, "task")] = None,
    base_model: Annotated[str | None, setting_option(CloudSettings, "base_model")] = None,
    clients: Annotated[int | None, setting_option(CloudSettings, "clients")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help=SET_HELP.format(example="rounds=3"))] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Make it even in a git work tree or in fedperfit's own folder.")
    ] = False,
) -> None:
    """Make a cloud: certificate authority, server certificate, signing key, settings.

    The folder holds private keys, so it should not lie in a git work tree, nor in fedperfit's own folder.
    """
    from fedperfit.cloud.deployment.home import CloudHome
    from fedperfit.cloud.deployment.home import init as make

    options = {
        **{"host": host, "port": port, "clients": clients},
        **{"task": task or None, "base_model": base_model or None},
    }
    given = parse_options(CloudSettings, options) | parse_assignments(CloudSettings, set_)
    settings = make(CloudHome(folder), preset, given, anywhere=force)
    said = f"made {folder}: {settings.task_id} on {settings.base_model}, {count_of(settings.rounds, 'round')}"
    print_line(said)
    if settings.update_basis == "none":
        told = "updates are whole shifts, of which more can be read than of votes in a basis of public items"
        print_line(f"{told}: fedperfit basis --help")
    if not settings.secure:
        enough = f"with {settings.committee_size} machines or more, --set secure-aggregation=committee"
        print_line(f"this cloud sees each update; {enough} shows it their sum alone")
    next_one = f"next: fedperfit-cloud up {quote(str(folder))}"
    print_line(f"settings are in {folder / 'cloud.toml'}; {next_one}")


def up(
    folder: Folder,
    unconfined: Annotated[
        bool, typer.Option("--unconfined", help="Execute runs where they can read the cloud's keys.")
    ] = False,
) -> None:
    """Run the SuperLink, nginx in front of it, and the signer of releases, until Ctrl-C.

    Edges reach the fleet interface alone, by TLS; runs are started from this machine, and executed where
    the signing key is not.
    """
    from fedperfit.cloud.deployment.home import CloudHome, read_cloud
    from fedperfit.cloud.deployment.up import Ready
    from fedperfit.cloud.deployment.up import up as run_until
    from fedperfit.protocol.system.memory import limit_memory
    from fedperfit.protocol.system.processes import until_signal

    def announce(ready: Ready) -> None:
        named = quote(str(folder))
        print_line(f"up at {ready.address}; logs in {folder / 'logs'}; stop with Ctrl-C")
        print_line(f"enroll a person: fedperfit-cloud enroll {named} NAME")
        print_line(f"start a run:     fedperfit-cloud run {named}")

    limit_memory(read_cloud(CloudHome(folder)).memory_gib)
    with until_signal() as stopping:
        run_until(CloudHome(folder), announce, stopping, unconfined=unconfined)


def policy(
    folder: Folder,
    out: Annotated[Path, typer.Argument(dir_okay=False, help="File to write the signed policy to.")],
) -> None:
    """Write what your settings ask edges to agree to, for `fedperfit-edge policy FOLDER --accept`."""
    from fedperfit.cloud.deployment.home import CloudHome, read_cloud

    home = CloudHome(folder)
    settings = read_cloud(home)

    from fedperfit.cloud.deployment.release_store import CloudReleases
    from fedperfit.cloud.enrolment.policy import offered
    from fedperfit.protocol.trust.policy import verify_policy, write_policy

    key = CloudReleases(home.folder).key()
    signed = offered(home, settings, key)
    write_policy(out, signed)
    agreed = verify_policy(signed, key.public)
    for sentence in agreed.sentences():
        print_line(sentence)
    print_line(
        f"wrote version {agreed.version}; at an edge: fedperfit-edge policy FOLDER --accept {out.name}"
    )


def run(
    folder: Folder,
    name: Annotated[str, typer.Option(help="Name of the run's folder in runs/; by default the time.")] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run of that name.")] = False,
    track: Track = None,
) -> None:
    """Train the collective shift, release it, have edges personalize and evaluate.

    Waits for the number of clients set in cloud.toml, and starts from the release in force, unless
    start-from says otherwise. Ctrl-C stops the run; it continues with --resume, as one that was killed does.
    """
    from fedperfit.cloud.deployment.home import CloudHome, read_cloud
    from fedperfit.cloud.tracking.sink import tracked
    from fedperfit.protocol.system.errors import InputError

    if resume and not name:
        raise InputError("--resume needs --name, the run to continue")
    home, out = CloudHome(folder), console()
    read_cloud(home)

    from fedperfit.cloud.deployment.run import run as run_job

    name = name or time.strftime("%Y%m%d-%H%M%S")
    again = ("fedperfit-cloud", "run", str(folder), "--name", name, "--resume")
    with going_on(out, *again, track=track), tracked(track, "cloud run") as follow:

        def show(event: dict[str, Any]) -> None:
            follow(event)
            line = _line(event)
            if line:
                print_line(line)

        done = run_job(home, name, resume=resume, on_event=show)
    print_line(f"done; results in {done / 'results'}")


def _line(event: dict[str, Any]) -> str:
    kind = event["event"]
    if kind == "connected":
        return f"{count_of(event['clients'], 'client')} connected"
    if kind == "chosen":
        chosen = ", ".join(f"{key} {value}" for key, value in event["settings"].items())
        return f"{chosen}: chosen from the gradients of {count_of(event['clients'], 'client')}"
    if kind == "start-from":
        how = "from" if event["same-shape"] else "anew, not in the shape of"
        return f"starting {how} release {event['version']}"
    if kind == "round":
        loss = "-" if event["loss"] is None else f"{event['loss']:.4f}"
        return (
            f"round {event['round']} of {event['rounds']}: {count_of(event['admitted'], 'update')}, "
            f"{event['dropped']} dropped, loss {loss}, "
            f"{count_of(event['down'], 'byte')} down, {event['up']:,} up"
        )
    if kind == "release":
        return f"released version {event['version']}, {event['digest'][:16]}"
    if kind == "result":
        return f"{event['phase']}: {count_of(event['clients'], 'client')}"
    return ""

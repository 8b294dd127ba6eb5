"""`fedperfit-cloud release export | push | import-pyreft`: releases as folders that other programs read."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fedperfit.cloud.cli.release import release_at
from fedperfit.protocol.system.commands import print_line
from fedperfit.protocol.system.errors import InputError


class Form(StrEnum):
    """What an exported folder is for."""

    HUB = "hub"
    PYREFT = "pyreft"


def export(
    place: Annotated[Path, typer.Argument(help="A release file, or the cloud's folder for its latest.")],
    out: Annotated[Path, typer.Argument(file_okay=False, help="New folder.")],
    form: Annotated[
        Form,
        typer.Option(help="`hub`: the signed file and a model card; `pyreft`: as ReftModel.load reads it."),
    ] = Form.HUB,
    base_model: Annotated[str, typer.Option(help="Name of the base model on the hub, for the card.")] = "",
) -> None:
    """Write a release as a folder for a hub, or for pyreft."""
    release = release_at(place)

    from fedperfit.protocol.portable.pyreft_folder import write_pyreft
    from fedperfit.protocol.portable.release_folder import save_pretrained

    if form is Form.PYREFT:
        write_pyreft(out, release.shift, release.header)
    else:
        save_pretrained(release, out, base_model or "its base model")
    print_line(f"wrote release {release.version} to {out}")


def push(
    place: Annotated[Path, typer.Argument(help="A release file, or the cloud's folder for its latest.")],
    name: Annotated[str, typer.Argument(help="Repository on the hub, OWNER/NAME; made where it is not.")],
    base_model: Annotated[str, typer.Option(help="Name of the base model on the hub, for the card.")] = "",
    private: Annotated[bool, typer.Option("--private", help="Make a new repository a private one.")] = False,
) -> None:
    """Put a release and its model card on the Hugging Face hub, signed in as `hf auth login` did.

    Whoever can read the repository has the collective shift then. HF_ENDPOINT names another hub.
    """
    release = release_at(place)

    from fedperfit.protocol.portable.hub import push_release

    address = push_release(release, name, base_model or "its base model", private=private)
    print_line(f"release {release.version} is at {address}")


def import_pyreft(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder that pyreft saved.")],
    out: Annotated[Path, typer.Argument(dir_okay=False, help="New release file.")],
    key: Annotated[Path, typer.Option(help="Private key that signs it, PEM; made where there is none.")],
    base_model: Annotated[
        str, typer.Option(help="Folder, GGUF file, hub name, `smollm2`, or `embedded`; ours say it.")
    ] = "",
    task: Annotated[str, typer.Option(help="Task it was trained for; ours say it.")] = "",
    positions: Annotated[str, typer.Option(help="Shifted tokens, e.g. f7+l7; ours say them.")] = "",
) -> None:
    """Make a release of LoReFT interventions that pyreft trained, or that `export` wrote."""
    if os.path.lexists(out):
        raise InputError(f"{out}: already exists")
    if out.resolve() == key.resolve():
        raise InputError(f"{out}: is the release and --key: the release would replace the key that signs it")

    from fedperfit.protocol.model.base_model import read_card
    from fedperfit.protocol.portable.pyreft_folder import read_pyreft
    from fedperfit.protocol.system.files import write_atomic
    from fedperfit.protocol.tasks import task_by_name
    from fedperfit.protocol.trust.release import Release
    from fedperfit.protocol.trust.signing import SigningKey, read_signing_key

    task = task and task_by_name(task).id
    card = read_card(base_model) if base_model else None
    fingerprint = card.fingerprint if card is not None else ""
    shift, header = read_pyreft(folder, task=task, fingerprint=fingerprint, positions=positions)
    if card is not None and header.shape.hidden_size != card.hidden_size:
        raise InputError(
            f"{folder}: hidden size {header.shape.hidden_size}, {base_model} has {card.hidden_size}"
        )
    if card is not None:
        header.shape.check_depth(card.layers)
    made = not key.exists()
    if made:
        SigningKey().write(key)
    try:
        write_atomic(out, Release.first(shift, header, read_signing_key(key)).to_bytes())
    except OSError:
        if made:
            key.unlink()  # it has signed nothing that there is
        raise
    print_line(f"wrote {out}")

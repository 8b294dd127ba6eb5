"""`fedperfit-edge policy`, and the question that `join` asks: what the cloud may ask, in words."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fedperfit.edge.deployment.home import Home, read_settings
from fedperfit.edge.releases.trusted_keys import trusted_keys
from fedperfit.protocol.system.commands import console
from fedperfit.protocol.system.errors import InputError, MalformedFileError, printable
from fedperfit.protocol.system.files import read_json
from fedperfit.protocol.trust.policy import LEAST_ITEMS, Policy, read_policy, verify_policy, write_policy


def policy(
    folder: Annotated[Path, typer.Argument(help="The person's own folder, as `join` made it.")],
    accept: Annotated[
        Path | None, typer.Option(help="A new policy from your cloud: read it, and agree to it or not.")
    ] = None,
    agree: Annotated[bool, typer.Option("--agree", help="Agree without being asked.")] = False,
) -> None:
    """Show what you agreed that the cloud may ask, or agree to something else."""
    home = Home(folder.absolute())
    keys = trusted_keys(home.releases, read_settings(home).release_key)
    if accept is None:
        if not home.policy.exists():
            raise InputError(f"{folder}: you have agreed to nothing yet, so everything is refused")
        _tell(read_policy(home.policy, *keys))
        return
    signed = read_json(accept)
    try:
        offered = verify_policy(signed, keys[-1])
    except MalformedFileError as error:
        raise MalformedFileError(f"{accept}: {error}, as far as the releases kept here tell") from None
    if home.policy.exists() and offered.version <= read_policy(home.policy, *keys).version:
        raise InputError(f"{accept}: version {offered.version} is not newer than what you agreed to")
    ask_for_consent(offered, agree)
    write_policy(home.policy, signed)
    console().print("agreed; it holds when the agent is started again")


def ask_for_consent(offered: Policy, agree: bool) -> None:
    """Show a policy and wait for the owner's yes.

    Args:
        offered: What the cloud wants to be allowed.
        agree: The owner has agreed on the command line.

    Raises:
        InputError: The owner says no, or nobody can be asked.
    """
    _tell(offered)
    if agree:
        return
    if not sys.stdin.isatty():
        raise InputError("nobody is here to agree: read the policy above, then add --agree")
    if not typer.confirm("Do you agree?"):
        raise InputError("you did not agree, so nothing was changed")


def _tell(agreed: Policy) -> None:
    out = console()
    out.print(f"What the cloud may ask (version {agreed.version}); everything else is refused:")
    for sentence in agreed.sentences():
        out.print(printable(f"- {sentence}"), markup=False, highlight=False)
    if agreed.least_items < LEAST_ITEMS:
        warning = f"- Mind: sums of fewer than {LEAST_ITEMS} items can tell much of a single one."
        out.print(warning, highlight=False)

"""Checks of a person's folder: its name, its secrets, the history, and whether it has joined a cloud."""

from collections.abc import Iterator
from shlex import quote

from fedperfit.edge.agent.history import files_to_seal, read_history
from fedperfit.edge.deployment.endpoint import SOCKET
from fedperfit.edge.deployment.home import AgentSettings, Home
from fedperfit.edge.sandbox.uplink import SOCKET as UPLINK
from fedperfit.edge.vault.keys import UNPROTECTED, FileKey
from fedperfit.protocol.doctor.files import folder_name, secrets
from fedperfit.protocol.doctor.findings import Finding, ok, warning, wrong
from fedperfit.protocol.system.errors import InputError, count_of

_JOIN = "fedperfit-edge join with the same invitation goes on"


def folder(home: Home) -> Iterator[Finding]:
    """Check the folder's name, and who may read what is in it.

    Args:
        home: The person's folder.
    """
    ends = [part / SOCKET for part in (home.bridge, home.owner, home.feed)]
    yield from folder_name(home.folder, [*ends, home.uplink / UPLINK])
    yield from secrets(
        [
            *(home.folder, home.node_key, home.vault_key, home.owner, home.owner / "token", home.bridge),
            *(home.feed, home.uplink, home.audit, home.guard, home.folder / "client.json"),
        ]
    )
    if home.enrolment.exists():
        yield ok("enrolment", "the cloud has registered this machine's key")
    else:
        yield wrong("enrolment", "the cloud has not registered this machine's key", _JOIN)


def history(home: Home, settings: AgentSettings) -> Iterator[Finding]:
    """Check that the history is there, and how it is kept. No word of it is told.

    Args:
        home: The person's folder.
        settings: The agent's.
    """
    try:
        kept = read_history(home.folder)
    except InputError as error:
        yield wrong("history", str(error), "put the file back, or mend it")
        return
    if kept.sealed:
        yield ok("history", "in the vault, sealed")
    elif files_to_seal(home.folder):
        yield ok("history", "in its file, to be imported when the agent starts")
    else:
        yield ok("history", f"{count_of(len(kept.items), 'item')} in a file of their own, in clear")
    if kept.remarks:
        said = f"left out or taken as something else: {count_of(len(kept.remarks), 'line')}"
        yield warning("history's lines", said, f"fedperfit-edge show {quote(str(home.folder))} lists them")
    if kept.sealed and not home.vault_key.exists():
        yield wrong("vault's key", f"{home.vault_key} is missing", "take it from your backup")
    elif settings.key == FileKey.kind:
        rotate = f"fedperfit-edge rotate-key {quote(str(home.folder))} --to passphrase"
        advice = f"stop the agent; {rotate} keeps it from who can read the folder"
        yield warning("vault's key", f"kept by {UNPROTECTED[settings.key]}", advice)
    else:
        yield ok("vault's key", f"kept by {UNPROTECTED[settings.key]}")

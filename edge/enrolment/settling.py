"""Making a person's folder from an invitation."""

from pathlib import Path

from fedperfit.edge.agent.history import About, history_of
from fedperfit.edge.deployment.home import AgentSettings, Home, write_address
from fedperfit.protocol.system.errors import InputError, no_file
from fedperfit.protocol.system.files import private_folder, write_atomic, write_json
from fedperfit.protocol.trust.bundle import Bundle
from fedperfit.protocol.trust.policy import write_policy


def settle(
    bundle: Bundle,
    home: Home,
    *,
    history: Path | None,
    questions: Path | None,
    base_model: str,
    shares_metrics: bool,
    key: str,
    device: str,
    encoder: str = "",
    plain_history: bool = False,
    fetch_seconds: float = 30.0,
) -> AgentSettings:
    """Make a person's folder from an invitation, or make it anew while no node of it is registered.

    Args:
        bundle: the invitation that the cloud gave out.
        home: the folder.
        history: the owner's own file, which is only read; None for history.jsonl in the folder.
        questions: file of held-out questions, if there is one.
        base_model: folder or hub name of the bundle's base model on this machine; empty for its own name.
        shares_metrics: whether sums of losses and scores may go to the cloud.
        key: how the vault's key is kept: file, passphrase or keyring.
        device: auto, cpu or cuda.
        encoder: sentence encoder that selects items for the group's directions; empty for the base model.
        plain_history: whether the history stays in its files; by default the agent imports it into the vault.
        fetch_seconds: time between two looks for a new release, about.

    Returns:
        The settings of the agent in this folder.

    Raises:
        InputError: the base model is another one, the history is missing or no line of it can be used, or a
            setting is wrong; nothing is made.
    """
    from fedperfit.protocol.model.base_model import load, read_card
    from fedperfit.protocol.model.functional import FunctionalFingerprint

    name = base_model or bundle.base_model
    stored = read_card(name).fingerprint
    if stored != bundle.fingerprint:
        if not bundle.functional:
            raise InputError(f"{name} is not the base model this cloud trains for")
        FunctionalFingerprint.parse(bundle.functional).check(load(name, device=device), name)
    if history is None and not (home.folder / "history.jsonl").is_file():
        raise InputError(f"--history: where is your history? (or put history.jsonl into {home.folder})")
    client = About(name=bundle.name, task=bundle.task, shares_metrics=shares_metrics)
    if not plain_history:
        client["sealed"] = False
    if history is not None:
        client["history"] = _place(history)
    if questions is not None:
        client["questions"] = _place(questions)
    history_of(home.folder, client)
    settings = AgentSettings(
        base_model=name,
        release_key=bundle.release_key,
        key=key,
        device=device,
        encoder=encoder,
        fetch_seconds=fetch_seconds,
        stored_model="" if stored == bundle.fingerprint else stored,
        federation_model="" if stored == bundle.fingerprint else bundle.fingerprint,
    )
    private_folder(home.folder)
    write_json(home.folder / "client.json", client)
    settings.write(home)
    write_policy(home.policy, bundle.signed_policy)
    write_atomic(home.authority, bundle.authority.encode())
    write_address(home, bundle.address)
    return settings


def _place(path: Path) -> str:
    """Return where a file is, from wherever it is read; raises MissingFileError where none is."""
    if not path.is_file():
        raise no_file(path)
    return str(path.absolute())


def settled(home: Home, digest: str) -> bool:
    """Return whether a folder has joined by an invitation.

    Args:
        home: the folder.
        digest: digest of the invitation's file.

    Raises:
        InputError: the folder has joined by another one.
    """
    if not home.enrolment.exists():
        return False
    if home.enrolment.read_bytes() != digest.encode():
        raise InputError(f"{home.folder}: belongs to another enrolment; choose another --folder")
    return True

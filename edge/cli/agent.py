"""`fedperfit-edge` for a deployed edge: join a cloud, run the agent, ask it."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from fedperfit.edge.cli.owner import Folder, owner, running, sendable
from fedperfit.protocol.system.commands import console, print_line
from fedperfit.protocol.system.errors import InputError, MalformedFileError, count_of, printable
from fedperfit.protocol.system.files import as_utf8

_Stage = Annotated[
    str, typer.Option(help="base, collective, directions or personal; by default what suits you best.")
]


def join(
    bundle: Annotated[Path, typer.Argument(help="The invitation you were given: NAME.bundle.")],
    folder: Annotated[
        Path | None, typer.Option(help="Where everything of yours is kept; by default in your data folder.")
    ] = None,
    history: Annotated[
        Path | None,
        typer.Option(help="Your history: one item of the task per line, as JSON. The file stays as it is."),
    ] = None,
    questions: Annotated[
        Path | None, typer.Option(help="Questions with answers to measure on, never trained on.")
    ] = None,
    base_model: Annotated[str, typer.Option(help="Where the base model is here, if not by its name.")] = "",
    share_metrics: Annotated[bool, typer.Option(help="Send sums of losses and scores to the cloud.")] = False,
    key: Annotated[
        str, typer.Option(help="The vault's key is kept by: file, passphrase or keyring.")
    ] = "file",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    encoder: Annotated[
        str,
        typer.Option(
            help="Sentence encoder, a folder or hub name, that selects items for the group's directions; by "
            "default the base model does."
        ),
    ] = "",
    plain_history: Annotated[
        bool,
        typer.Option("--plain-history", help="Leave your history in its file; else the vault imports it."),
    ] = False,
    fetch_seconds: Annotated[
        float, typer.Option(help="Look for a new release about so often, in seconds.")
    ] = 30.0,
    personal_epsilon: Annotated[
        float, typer.Option(help="What your personal shift may tell of any one item; 0 sets no limit.")
    ] = 0.0,
    agree: Annotated[
        bool, typer.Option("--agree", help="Agree to what the cloud may ask without being asked.")
    ] = False,
    unconfined: Annotated[bool, typer.Option(help="Run what talks to the cloud without a sandbox.")] = False,
) -> None:
    """Join a cloud and take part until Ctrl-C; the same command goes on later.

    Your history, personal shift and generated texts never leave this machine. What does is in `sent`.

    Example: fedperfit-edge join ada.bundle --folder ada --history history.jsonl
    """
    import platformdirs

    from fedperfit.edge.agent.consent import check_limit, limit_epsilon
    from fedperfit.edge.cli.policy import ask_for_consent
    from fedperfit.edge.deployment.home import Home
    from fedperfit.edge.deployment.joining import keep_running
    from fedperfit.edge.enrolment.registering import register
    from fedperfit.edge.enrolment.settling import settle, settled
    from fedperfit.edge.enrolment.trusting import learn_authorities
    from fedperfit.protocol.system.processes import until_signal
    from fedperfit.protocol.trust.bundle import identify_bundle, read_bundle
    from fedperfit.protocol.trust.policy import verify_policy

    name, digest = identify_bundle(bundle)
    home = Home((folder or Path(platformdirs.user_data_dir("fedperfit")) / name).absolute())

    def say(line: str) -> None:  # it may quote the cloud, whose brackets are no markup
        console().print(printable(line), markup=False)

    with until_signal() as stopping:
        if not settled(home, digest):
            check_limit(personal_epsilon)
            invitation = read_bundle(bundle)
            ask_for_consent(verify_policy(invitation.signed_policy, invitation.release_key), agree)
            settle(
                invitation,
                home,
                history=history,
                questions=questions,
                base_model=base_model,
                shares_metrics=share_metrics,
                key=key,
                device=device,
                encoder=encoder,
                plain_history=plain_history,
                fetch_seconds=fetch_seconds,
            )
            limit_epsilon(home.folder, personal_epsilon)
            if not register(invitation, home, digest, say=say, stopping=stopping):
                return
        else:
            for line in _unheeded(home.folder, share_metrics, personal_epsilon):
                say(line)
        keep_running(
            home,
            unconfined=unconfined,
            say=say,
            stopping=stopping,
            changed=lambda: learn_authorities(home, say),
        )


def _unheeded(folder: Path, shares: bool, epsilon: float) -> Iterator[str]:
    """Tell which options of a later `join` ask for something else than is in force, and change nothing."""
    from fedperfit.edge.agent import consent

    if shares and not consent.shares_metrics(folder):
        yield "you have joined already: --share-metrics changes nothing, `share-metrics FOLDER on` does"
    if epsilon and epsilon != consent.personal_epsilon(folder):
        yield "you have joined already: --personal-epsilon changes nothing, `personal-epsilon FOLDER` does"


def trust(
    folder: Folder,
    authorities: Annotated[Path, typer.Argument(help="tls/authorities.json of your cloud.")],
) -> None:
    """Take your cloud's word on its certificate authorities from a file, where it cannot be fetched.

    `join` fetches it by itself; an edge that was off while its cloud changed the authority cannot.
    """
    from fedperfit.edge.deployment.home import Home
    from fedperfit.edge.enrolment.trusting import accept_authorities

    home = Home(folder.absolute())
    try:
        changed = accept_authorities(home, authorities.read_bytes())
    except MalformedFileError as error:
        raise InputError(f"{authorities}: {error}") from None
    console().print("it is trusted from now on; start `join` again" if changed else "it says nothing newer")


def agent(folder: Folder) -> None:
    """Run the agent alone: load the base model, open the vault, serve both sockets until Ctrl-C."""
    # Before torch is loaded. Its threads wait spinning, which made three agents on two cores five times
    # slower than this; one alone is as fast.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    from fedperfit.edge.deployment.home import Home, read_settings

    home = Home(folder.absolute())
    settings = read_settings(home)

    from fedperfit.edge.deployment.deployed import Deployed
    from fedperfit.edge.deployment.server import serving, undumpable
    from fedperfit.edge.vault.keys import keeper
    from fedperfit.edge.vault.vault_key import kept_by
    from fedperfit.protocol.system.allocator import keep_freed_memory
    from fedperfit.protocol.system.memory import limit_memory
    from fedperfit.protocol.system.processes import until_signal, wait_until

    kind = kept_by(home.vault_key, settings.key)
    undumpable()
    limit_memory(settings.memory_gib)
    keep_freed_memory()
    with (
        until_signal() as stopping,
        Deployed.open(home, settings, keeper(kind, new=not home.vault_key.exists())) as deployed,
        serving(deployed, home),
    ):
        print_line(f"{deployed.agent.history.name}: serving in {home.folder}; stop with Ctrl-C")
        wait_until(stopping, float("inf"))


def learn(
    folder: Folder,
    items: Annotated[Path, typer.Argument(help="Items, one JSON object per line; - reads them here.")],
) -> None:
    """Add items to your history, encrypted, and update the personal shift at once.

    A line that cannot be used is left out, and told by its number. Items learned before are taught but not
    added again, so that after a kill the same command can be typed again.
    """
    from fedperfit.protocol.schema import owner_pb2

    data = as_utf8(sys.stdin.buffer.read() if str(items) == "-" else items.read_bytes())
    lines = [_decoded(number, line) for number, line in enumerate(data.split(b"\n"), start=1)]
    request = sendable(owner_pb2.LearnRequest(items=lines), str(items))
    with owner(folder) as agent:
        done = agent.Learn(request)
    for remark in done.remarks:
        print_line(remark)
    loss = f", loss {done.loss:.3f}" if done.loss else ""
    taught = f"; {done.steps} steps{loss}" if done.steps else "; for the next release"
    console().print(f"learned {done.added}, {done.learned} in the vault{taught}")


def _decoded(number: int, line: bytes) -> str:
    """Return a line as text; one that is none is told, and stands as an empty one."""
    try:
        return line.decode()
    except UnicodeDecodeError:
        console().print(f"line {number}: not UTF-8 text; left out")
        return ""


def generate(
    folder: Folder,
    prompt: Annotated[str, typer.Argument(help="A text to continue; - reads it here, unseen by others.")],
    stage: _Stage = "",
    max_new_tokens: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="At most so many tokens; 0 is the agent's own.")
    ] = 0,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
) -> None:
    """Continue a text, piece by piece."""
    from fedperfit.protocol.schema import owner_pb2

    request = owner_pb2.GenerateRequest(
        prompt=_given(prompt), stage=stage, max_new_tokens=max_new_tokens, temperature=temperature
    )
    with owner(folder) as agent:
        for piece in agent.Generate(sendable(request, "the text")):
            print(piece.text, end="", flush=True)
    print()


def ask(
    folder: Folder,
    question: Annotated[
        str,
        typer.Argument(help="A question of the task, in LaMP's form; - reads it here, unseen by others."),
    ],
    stage: _Stage = "",
) -> None:
    """The answer to a question of the task."""
    from fedperfit.protocol.schema import owner_pb2

    request = owner_pb2.AnswerRequest(question=_given(question), stage=stage)
    with owner(folder) as agent:
        print(agent.Answer(sendable(request, "the question")).text)


def forget(
    folder: Folder,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete the personal shift, the learned items, an imported history and the key that protected them.

    A history file outside the vault is yours and stays. Works with and without a running agent.
    """
    from fedperfit.edge.deployment.home import Home, read_settings
    from fedperfit.edge.vault.keys import FileKey, KeyringKey
    from fedperfit.edge.vault.vault import VAULT, Vault
    from fedperfit.protocol.schema import owner_pb2

    home = Home(folder.absolute())
    settings = read_settings(home)
    if not (home.folder / VAULT).is_dir():
        console().print("forgot nothing: there is no vault yet")
        return
    if not yes:
        typer.confirm(f"forget everything personal in {folder}?", abort=True)
    if running(folder):
        with owner(folder) as agent:
            done = agent.Forget(owner_pb2.ForgetRequest())
        shifts, learned, imported = done.shifts, done.learned, done.imported
    else:
        keeper = KeyringKey() if settings.key == KeyringKey.kind else FileKey()
        shifts, learned, imported = Vault(home.folder / VAULT, keeper).forget()
    history = f", the {count_of(imported, 'item')} of your imported history" if imported else ""
    console().print(
        f"forgot {count_of(shifts, 'personal shift')} and {count_of(learned, 'learned item')}{history}; "
        "their key is destroyed"
    )


def rotate_key(
    folder: Folder,
    to: Annotated[str, typer.Option(help="How the new key is kept: file, passphrase or keyring.")] = "",
) -> None:
    """Seal the vault under a new key, kept as before or in another way; the agent must be stopped.

    A new passphrase comes from FEDPERFIT_NEW_PASSPHRASE, or is asked for twice. An empty vault has no key:
    how its first one will be kept is noted.
    """
    from fedperfit.edge.deployment.home import Home, read_settings
    from fedperfit.edge.vault.keys import UNPROTECTED, keeper, next_keeper
    from fedperfit.edge.vault.vault import VAULT, Vault
    from fedperfit.edge.vault.vault_key import kept_by

    home = Home(folder.absolute())
    settings = read_settings(home)
    kind = kept_by(home.vault_key, settings.key)
    vault = Vault(home.folder / VAULT)
    with vault.held(finishing=False):
        if vault.empty:
            settings = settings.replace(key=to or kind)
            settings.write(home)
            kept = UNPROTECTED[settings.key]
            console().print(
                f"sealed nothing: the vault is empty; its first key will be kept by {kept}", soft_wrap=True
            )
            return
    present = keeper(kind)
    new = next_keeper(to or kind, kind)
    vault = Vault(home.folder / VAULT, present)
    with vault.held():
        vault.rotate(new)
        settings.replace(key=new.kind).write(home)
    console().print(f"sealed under a new key, kept by {UNPROTECTED[new.kind]}", soft_wrap=True)


def _given(text: str) -> str:
    """Read standard input in place of `-`, so that the text is not in the process list."""
    if text != "-":
        return text
    try:
        read = sys.stdin.read().removesuffix("\n")
    except UnicodeDecodeError:
        raise InputError("standard input: not UTF-8 text") from None
    if not read.strip():
        raise InputError("standard input: empty")
    return read

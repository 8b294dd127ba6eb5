"""`fedperfit-edge explain`: what the agent is, holds and does, in words for its owner."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fedperfit.edge.cli.owner import Folder, owner
from fedperfit.protocol.system.commands import console
from fedperfit.protocol.system.errors import count_of, printable

if TYPE_CHECKING:
    from fedperfit.protocol.schema import owner_pb2

_STAGES = {
    "base": "the base model alone",
    "collective": "the base model with the collective shift",
    "directions": "the base model with the collective shift and the group's directions",
    "personal": "the base model with all that is shared and your personal shift",
}
"""What answers at each stage."""
Row = tuple[str, str]
"""What is told, and the text."""


def explain(folder: Folder) -> None:
    """What the agent is, holds and does: release, personal shift, history, which stage answers and why."""
    from rich.markup import escape
    from rich.table import Table

    from fedperfit.protocol.schema import owner_pb2

    with owner(folder) as agent:
        told = agent.Explain(owner_pb2.ExplainRequest())
    table = Table("", "", title=escape(printable(told.client)), show_header=False)
    for section in (_answering, _release, _personal, _history, _cloud):
        for label, text in section(told):
            table.add_row(label, escape(printable(text)))
        table.add_section()
    console().print(table)


def _answering(told: "owner_pb2.Explanation") -> Iterator[Row]:
    yield "your questions are answered by", _STAGES.get(told.stage, told.stage or "nothing yet")
    if told.personal.judged:
        losses = ", ".join(f"{one.stage} {one.loss:.3f}" for one in told.personal.judged)
        yield "because of the loss on items held out", f"{losses} (less is better)"
    yield "base model", told.base_model
    yield "its fingerprint", told.fingerprint
    yield "task", told.task
    yield "at work on", told.busy or "nothing at the moment"
    if told.problem:
        yield "what is wrong", told.problem


def _release(told: "owner_pb2.Explanation") -> Iterator[Row]:
    if not told.HasField("release"):
        yield "collective shift", "none yet: the cloud has released nothing that is here"
    else:
        release = told.release
        layers = ", ".join(map(str, release.layers))
        yield "collective shift", f"release {release.version}, trained in {count_of(release.rounds, 'round')}"
        yield "where it acts", f"layers {layers}, positions {release.positions}, rank {release.rank}"
        yield "valid", f"from {release.issued} to {release.expires}"
        yield "its digest", release.digest
        if release.edited:
            yield "the group's directions act in", f"layers {', '.join(map(str, release.edited))}"
        yield "what it tells of any one contributor", release.privacy or "not limited by a promise"
    yield "the cloud last confirmed what is in force", told.confirmed or "never"
    if told.notice:
        yield "look at the release", told.notice


def _personal(told: "owner_pb2.Explanation") -> Iterator[Row]:
    if not told.HasField("personal"):
        yield "your personal shift", "none yet"
        return
    personal = told.personal
    yield "your personal shift", f"{personal.parameters:,} numbers of rank {personal.rank}, in your vault"
    made = f"{personal.origin} on {count_of(personal.items, 'item')}, for release {personal.release}"
    yield "how it was made", f"{made}, {personal.stored}"
    yield "what it may tell of any one item", personal.promise or "not limited: see personal-epsilon"


def _history(told: "owner_pb2.Explanation") -> Iterator[Row]:
    where = "in the vault, sealed" if told.sealed_history else "in your own file, in clear"
    yield "your history is", f"{count_of(told.history_items, 'item')}, {where}"
    yield "items learned since", f"{told.learned_items}, in the vault, sealed"
    yield "the vault's key is kept by", told.key


def _cloud(told: "owner_pb2.Explanation") -> Iterator[Row]:
    answered = f"all but {', '.join(told.not_consented)}" if told.not_consented else "what it may ask"
    yield "the cloud is answered", "nothing: paused" if told.paused else answered
    yield "scores are sent", "sums only" if told.shares_metrics else "no"
    sent = ", ".join(f"{one.call} {count_of(one.messages, 'time')}" for one in told.sent)
    yield "answers that were sent", sent or "none"
    if told.refusal:
        yield "requests that were refused", f"{told.refused}, the latest at {told.refusal}"

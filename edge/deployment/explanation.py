"""Describes the agent's state as the message that its owner gets."""

from pathlib import Path

from fedperfit.edge.agent.consent import read_consent, shares_metrics
from fedperfit.edge.asking.stages import State
from fedperfit.edge.deployment.deployed import Deployed
from fedperfit.edge.fitting.form import DELTA
from fedperfit.edge.vault.keys import UNPROTECTED
from fedperfit.protocol.schema import owner_pb2
from fedperfit.protocol.system.errors import InputError


def explanation(deployed: Deployed, state: State) -> owner_pb2.Explanation:
    """Describe an agent for its owner: history, release, personal shift, work under way.

    Args:
        deployed: the agent.
        state: its state at this moment.
    """
    history = deployed.agent.history
    totals = deployed.record.totals
    learned = len(deployed.agent.vault.learned())
    explanation = owner_pb2.Explanation(
        client=history.name,
        base_model=deployed.settings.base_model,
        fingerprint=deployed.agent.base.card.fingerprint,
        task=history.task.name,
        history_items=len(history.items) - learned,
        learned_items=learned,
        stage=state.stage,
        busy=state.busy,
        problem=state.problem,
        sent=[
            owner_pb2.SentTotal(call=call, messages=count, bytes=size, refused=totals.refusals.get(call, 0))
            for call, (count, size) in sorted(totals.messages.items())
        ],
        refused=totals.refused,
        refusal=totals.refusal,
        sealed_history=history.sealed,
        key=UNPROTECTED[deployed.settings.key],
        notice=deployed.releases.notice(),
    )
    _add_consent(explanation, deployed.home.folder)
    pointer = deployed.releases.pointer()
    if pointer is not None:
        explanation.confirmed = pointer.issued
    if state.release is not None:
        release, shape = state.release, state.release.header.shape
        explanation.release.MergeFrom(
            owner_pb2.ReleaseState(
                version=release.version,
                digest=release.digest,
                issued=release.issued,
                expires=release.expires,
                rounds=release.header.round,
                layers=shape.layers,
                positions=str(shape.positions),
                rank=shape.rank,
                edited=release.directions.layers if release.directions is not None else (),
                privacy=release.promise,
            )
        )
    if state.personal is not None:
        fit_record = state.personal.fit_record
        explanation.personal.MergeFrom(
            owner_pb2.PersonalState(
                rank=state.personal.shape.rank,
                parameters=state.personal.shape.parameters,
                items=fit_record.items,
                release=fit_record.version,
                stored=fit_record.stored,
                origin=fit_record.origin,
                judged=[owner_pb2.Judged(stage=s, loss=loss) for s, loss in fit_record.judged.items()],
                promise=f"epsilon {fit_record.epsilon:g} at delta {DELTA:g}" if fit_record.epsilon else "",
            )
        )
    return explanation


def _add_consent(explanation: owner_pb2.Explanation, folder: Path) -> None:
    try:
        consent = read_consent(folder)
        explanation.shares_metrics = shares_metrics(folder)
    except InputError as error:  # then the cloud is answered nothing
        explanation.paused, explanation.problem = True, str(error)
    else:
        explanation.paused = consent.paused
        explanation.not_consented.extend(consent.refused)

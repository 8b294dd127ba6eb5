"""What the cloud asks of a party of secure sums, in terms of the settings that travel."""

from dataclasses import dataclass

import torch

from fedperfit.edge.sums.party import MemberAnswer, SumParty
from fedperfit.protocol.messages.settings import CoordinateSettings
from fedperfit.protocol.messages.sums import SumSettings, session_of
from fedperfit.protocol.secure_sums.session import Session
from fedperfit.protocol.shift.coordinate_packing import Agreement
from fedperfit.protocol.system.errors import InputError


@dataclass(frozen=True)
class SumRequest:
    """What a member of the committee is asked."""

    terms: SumSettings
    """Terms of the training's sums."""
    wanted: CoordinateSettings
    """Basis and codec of the updates."""
    round: int
    """Round, counted from 1."""
    clients: tuple[str, ...]
    """Names of the contributors."""
    envelopes: tuple[bytes, ...]
    """What each of them sealed to the member."""


def sealed_update(
    party: SumParty | None,
    change: torch.Tensor,
    terms: SumSettings,
    agreement: Agreement,
    broadcast: str,
    seed: int,
) -> bytes:
    """Return an update sealed to the committee, behind the tag of what was agreed on.

    Args:
        party: The contributor; None where it is not enrolled.
        change: (n,) what training changed.
        terms: Terms of the training's sums.
        agreement: Basis, codec and round of the broadcast.
        broadcast: Digest of the broadcast and the training settings that the update is of.
        seed: Seed of the rounding at random.

    Raises:
        InputError: If the contributor is not enrolled, or the terms do not fit the update.
    """
    enrolled = _enrolled(party)
    if terms.sum_broadcast != broadcast:
        raise InputError("the terms of the sum are for another broadcast, or other settings of the training")
    if len(change) != terms.sum_numbers:
        raise InputError(f"an update of {len(change)} numbers, asked for {terms.sum_numbers}")
    wanted = CoordinateSettings.of(agreement.basis, agreement.codec)
    session = session_of(terms, wanted, agreement.round + 1, enrolled.release, enrolled.directory)
    return agreement.tag + enrolled.contribute(change, session, terms.clipping_norm, seed)


def tell_sum(party: SumParty | None, request: SumRequest) -> MemberAnswer:
    """Answer as a member of the committee, once a round.

    Args:
        party: The member; None where it is not enrolled.
        request: Contributors and what they sealed.

    Raises:
        InputError: If it is no member, has answered, or the list is not to be summed.
    """
    member = _enrolled(party)
    return member.answer(_session(member, request), request.clients, request.envelopes)


def told_before(member: SumParty, request: SumRequest) -> bool:
    """Return whether a member has told its sum for the very same request; raises InputError for bad terms.

    Args:
        member: The member.
        request: Contributors and what they sealed.
    """
    return member.told_before(_session(member, request), request.clients, request.envelopes)


def _session(member: SumParty, request: SumRequest) -> Session:
    return session_of(request.terms, request.wanted, request.round, member.release, member.directory)


def _enrolled(party: SumParty | None) -> SumParty:
    if party is None:
        raise InputError("this agent is not enrolled for secure sums")
    return party

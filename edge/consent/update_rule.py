"""The rules for rounds in a basis: exactly the basis, encoding and committee that the owner agreed to."""

from fedperfit.edge.consent.refusal import Refused
from fedperfit.protocol.messages.settings import CoordinateSettings
from fedperfit.protocol.messages.sums import SumSettings
from fedperfit.protocol.trust.policy import Policy, RequestKind

_MOST_ROUNDS = 1 << 20
"""Largest number of a round."""


def check_basis(kind: RequestKind, wanted: CoordinateSettings, policy: Policy) -> None:
    """Check basis and encoding of updates; raises Refused.

    Args:
        kind: Kind of request.
        wanted: Basis and codec that the request names.
        policy: What the owner agreed to.
    """
    if (wanted.basis, wanted.codec) != (policy.update_basis, policy.update_codec):
        agreed = f"{policy.update_basis[:16]} and {policy.update_codec}" if policy.update_basis else "none"
        raise Refused(f"{kind}: the basis {wanted.basis[:16]} and {wanted.codec}; agreed is {agreed}")


def check_terms(kind: RequestKind, terms: SumSettings | None, policy: Policy) -> None:
    """Check the terms of a sum; raises Refused.

    Args:
        kind: Kind of request.
        terms: Terms that an update is to be sealed for; None for an open update.
        policy: What the owner agreed to.
    """
    if not policy.committee_size:
        if terms is not None:
            raise Refused(f"{kind}: sums of sealed updates; they are not agreed to")
        return
    if terms is None:
        raise Refused(f"{kind}: an open update; agreed are sums of sealed ones alone")
    agreed = {
        "committee-size": (terms.committee_size, policy.committee_size),
        "committee-corrupt": (terms.committee_corrupt, policy.committee_corrupt),
        "committee-threshold": (terms.committee_threshold, policy.committee_threshold),
        "clipping-norm": (terms.clipping_norm, policy.clipping_norm),
        "sum-numbers": (terms.sum_numbers, policy.update_numbers),
    }
    for name, (asked, expected) in agreed.items():
        if asked != expected:
            raise Refused(f"{kind}: {name}={asked:g}, agreed is {expected:g}")
    if terms.fewest_contributors < policy.fewest_contributors:
        raise Refused(
            f"{kind}: sums of {terms.fewest_contributors} people, agreed are at least "
            f"{policy.fewest_contributors}"
        )


def check_sum(terms: SumSettings, number: int, clients: int, policy: Policy) -> None:
    """Check what a member of the committee is asked; raises Refused.

    Args:
        terms: Terms of the sum.
        number: Round, counted from 1.
        clients: Number of contributors.
        policy: What the owner agreed to.
    """
    check_terms("sum", terms, policy)
    if not policy.fewest_contributors <= clients <= terms.sum_addends:
        least, most = policy.fewest_contributors, terms.sum_addends
        raise Refused(f"sum: of {clients} people, agreed are {least} to {most}")
    if not 1 <= number <= _MOST_ROUNDS:
        raise Refused(f"sum: round {number} is none")

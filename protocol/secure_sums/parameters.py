"""The committee's numbers: how many members, how many of them corrupt, how many answers make a sum.

A cloud can show members different lists of clients. Where T of k members make a sum and c are corrupt, T - c
honest answers over one list give it that list's sum, and the k - T honest members left can be shown the
same list with one client more: with what the corrupt ones hold, k - T + c shares of that client. So

    tau = k + c - T      shares that tell nothing
    p   = 2T - k - c     numbers packed into one polynomial, whose degree is tau + p - 1 = T - 1

With the usual tau = c a cloud would learn up to half of a client's packed numbers.
"""

from dataclasses import dataclass

from fedperfit.protocol.system.errors import InputError

MOST_MEMBERS = 100
"""Largest committee, so that its points fit into the smallest field."""


@dataclass(frozen=True)
class CommitteeShape:
    """The numbers of a committee, checked."""

    size: int
    """Number of members, k."""
    corrupt: int
    """Largest number of members that the cloud may control, c."""
    threshold: int
    """Number of members whose answers make a sum, T."""

    def __post_init__(self) -> None:
        if not 2 <= self.size <= MOST_MEMBERS:
            raise InputError(f"committee-size={self.size}: expected 2 to {MOST_MEMBERS} members")
        if not 1 <= self.corrupt < self.size:
            raise InputError(f"committee-corrupt={self.corrupt}: expected 1 to {self.size - 1} members")
        least = (self.size + self.corrupt) // 2 + 1
        if not least <= self.threshold <= self.size:
            raise InputError(
                f"committee-threshold={self.threshold}: expected {least} to {self.size} answers of "
                f"{self.size} members, {self.corrupt} of them corrupt"
            )

    @property
    def private(self) -> int:
        """Number of shares that tell nothing, tau."""
        return self.size + self.corrupt - self.threshold

    @property
    def packed(self) -> int:
        """Numbers in one polynomial, p."""
        return 2 * self.threshold - self.size - self.corrupt

    def columns(self, numbers: int) -> int:
        """Return how many polynomials hold a vector of so many numbers."""
        return -(-numbers // self.packed)

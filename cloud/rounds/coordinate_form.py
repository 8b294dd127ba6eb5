"""Rounds in a frozen basis: coordinates go down, what training changed in them comes back.

Every rule works on vectors that mean the same at each client. With one bit a number the updates are votes:

    theta <- theta + s sum_i w_i sign_i / sum_i w_i        s: the median of the clients' scales

so that a client's vote counts for one, whatever scale it claims (signSGD with votes, Bernstein et al., 2018;
here their mean, which keeps how far the clients agree).
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from flwr.app import ConfigRecord, RecordDict

from fedperfit.cloud.clients.coordinate_gate import CoordinateGate, CoordinateUpdate
from fedperfit.cloud.clients.memory_limits import rows_at_once
from fedperfit.cloud.clients.update_file import FiledChange, UpdateFile
from fedperfit.cloud.privacy.rounds import PrivateRounds
from fedperfit.cloud.rounds.checkpoint import Checkpoint
from fedperfit.cloud.rounds.forms import Config, Sent, UpdateForm
from fedperfit.cloud.rounds.robust import robust_numbers
from fedperfit.cloud.rounds.scatter import UpdateScatter
from fedperfit.cloud.rounds.settings import FederationSettings
from fedperfit.protocol.messages.keys import BASIS_KEY, BASIS_RECORD
from fedperfit.protocol.messages.settings import CoordinateSettings
from fedperfit.protocol.shift.basis import Basis, Coordinates
from fedperfit.protocol.shift.coordinate_packing import Agreement, pack_coordinates
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError


class CoordinateBroadcasts(UpdateForm[Coordinates, Sent]):
    """Coordinates in one basis, which a client is sent once."""

    def __init__(self, basis: Basis, settings: FederationSettings) -> None:
        """Set up the broadcasts.

        Args:
            basis: The frozen R and P of the run.
            settings: Settings of the rounds; their dtype is the updates' codec.
        """
        self.basis, self.settings = basis, settings

    def start(self, shift: Shift | None, seed: int) -> Coordinates:
        """Return the coordinates of a given shift, which must lie in the basis, or those of the identity."""
        if shift is None:
            return Coordinates.zero(self.basis)
        coordinates = Coordinates.of_shift(self.basis, shift)
        if coordinates is None:
            raise InputError("the shift that rounds would start from does not lie in the update basis")
        return coordinates

    def restored(self, checkpoint: Checkpoint) -> Coordinates:
        """Return the checkpoint's coordinates."""
        if checkpoint.numbers is None:
            raise InputError("the checkpoint holds no coordinates")
        return Coordinates.of(self.basis, torch.tensor(checkpoint.numbers, dtype=torch.float32))

    def shift(self, state: Coordinates) -> Shift:
        """Return the plain shift, as it is released."""
        return state.shift()

    def numbers(self, state: Coordinates) -> list[float]:
        """Return the coordinates, exactly."""
        numbers: list[float] = state.numbers.tolist()
        return numbers

    def requests(
        self, clients: Sequence[str], state: Coordinates, number: int, config: Config, holders: set[str]
    ) -> dict[str, RecordDict]:
        """Make one request for every client; those that are no holders get the basis with it."""
        wanted = CoordinateSettings(basis=self.basis.digest, codec=self.settings.dtype)
        packed = self.packed(state, number)
        requests = self.carrying(clients, packed, config | wanted.to_config())
        lacking = set(clients) - holders
        if lacking:
            basis = ConfigRecord({BASIS_KEY: self.basis.to_bytes()})
            whole = RecordDict({**requests[next(iter(lacking))], BASIS_RECORD: basis})
            requests |= dict.fromkeys(lacking, whole)
        return requests

    def packed(self, state: Coordinates, number: int) -> bytes:
        """Pack what a round broadcasts."""
        return pack_coordinates(state, self._agreement(number))

    def _agreement(self, number: int) -> Agreement:
        return Agreement(self.basis.digest, self.settings.dtype, number - 1)


class CoordinateForm(CoordinateBroadcasts[FiledChange]):
    """Updates that the cloud sees one by one."""

    def __init__(
        self,
        basis: Basis,
        settings: FederationSettings,
        privacy: PrivateRounds | None = None,
        scatter: UpdateScatter | None = None,
    ) -> None:
        """Set up the form.

        Args:
            basis: The frozen R and P of the run.
            settings: Settings of the rounds; their dtype is the updates' codec.
            privacy: Promise under which changes are noised; None for none.
            scatter: Keeps how updates differ; None for nothing.
        """
        super().__init__(basis, settings)
        self.privacy, self.scatter = privacy, scatter

    def gate(self, state: Coordinates, number: int) -> CoordinateGate:
        """Make a gate for updates of these coordinates."""
        return CoordinateGate(
            state,
            self._agreement(number),
            round=number,
            max_norm=self.settings.max_norm,
            max_items=self.settings.max_items,
        )

    def keeper(self) -> Callable[[CoordinateUpdate], FiledChange]:
        """Keep changes in a file."""
        file = UpdateFile()
        return lambda update: FiledChange.keep(update, file)

    def combine(
        self,
        admitted: Sequence[FiledChange],
        broadcast: Coordinates,
        number: int,
        discounts: Sequence[float] | None = None,
    ) -> Coordinates:
        """Add the mean of the changes, noised under a promise, or what a robust rule makes of them.

        Args:
            admitted: The changes.
            broadcast: Coordinates to which the mean is added.
            number: Number of the round, counted from 1.
            discounts: Factors by which each change counts for less, not the others for more; None for 1.
        """
        if self.privacy is None:
            change = self._change(admitted, discounts)
            if self.scatter is not None:
                self.scatter.record(number, self._changes(admitted))
        else:
            updates = [update.change for update in admitted]
            none = torch.zeros(0, self.basis.numbers)
            change = self.privacy.change(number, torch.stack(updates) if updates else none)
        return Coordinates.of(self.basis, (broadcast.numbers.double() + change).float())

    def _changes(self, admitted: Sequence[FiledChange]) -> torch.Tensor:
        """Changes (clients, n), all of one scale where they are votes."""
        return torch.cat(list(self._scaled(admitted)))

    def _scaled(self, admitted: Sequence[FiledChange]) -> Iterator[torch.Tensor]:
        """Yield the changes of `_changes` part by part, each to be overwritten at will."""
        if self.settings.dtype != "sign":
            yield from _parts(admitted)
            return
        step = torch.cat([part.abs().mean(dim=1) for part in _parts(admitted)]).median()
        for part in _parts(admitted):
            yield part.sign_().mul_(step)

    def _change(
        self, admitted: Sequence[FiledChange], discounts: Sequence[float] | None = None
    ) -> torch.Tensor:
        rule = self.settings.aggregation
        if rule != "mean":
            return robust_numbers(rule, self._changes(admitted), self.settings.assumed_malicious)
        weights = torch.tensor([float(update.items) for update in admitted], dtype=torch.double)
        counted = weights / weights.sum()
        if discounts is not None:
            counted *= torch.tensor(discounts, dtype=torch.double)
        shares = counted.split(rows_at_once(self.basis.numbers))
        change = torch.zeros(self.basis.numbers, dtype=torch.double)
        for share, part in zip(shares, self._scaled(admitted), strict=True):
            change += share @ part
        return change


def _parts(admitted: Sequence[FiledChange]) -> Iterator[torch.Tensor]:
    """Yield the changes in fp64, so many at a time as fit in memory: (rows, n)."""
    rows = rows_at_once(admitted[0].numbers)
    for start in range(0, len(admitted), rows):
        yield torch.stack([update.change for update in admitted[start : start + rows]]).double()

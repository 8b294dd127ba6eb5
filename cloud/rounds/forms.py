"""The form that updates have in a round: what is broadcast, what is admitted, how updates become one.

Here whole shifts travel, R, W and b; `cloud.rounds.coordinate_form` has coordinates in a frozen basis.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from fedperfit.cloud.clients.admission import AdmissionGate, Update
from fedperfit.cloud.clients.metric_rules import Metric
from fedperfit.cloud.clients.update_file import FiledShift, UpdateFile
from fedperfit.cloud.rounds.aggregation import mean_shift
from fedperfit.cloud.rounds.checkpoint import Checkpoint
from fedperfit.cloud.rounds.robust import robust
from fedperfit.cloud.rounds.settings import FederationSettings
from fedperfit.protocol.messages.keys import SETTINGS_RECORD, SHIFT_KEY, SHIFT_RECORD, SHIFT_STYPE
from fedperfit.protocol.shift.packing import ShiftHeader, pack
from fedperfit.protocol.shift.shift import Shift

Config = dict[str, bool | int | float | str]
"""Values of a Flower ConfigRecord."""
State = TypeVar("State")
"""What is trained over the rounds."""


class Admitted(Protocol):
    """What every admitted update tells, whatever its form."""

    @property
    def client(self) -> str:
        """Name of the client."""

    @property
    def items(self) -> int:
        """Weight of the client: its training pairs, capped."""

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """Sums over all its pairs; empty if the owner shares none."""

    @property
    def trained(self) -> int:
        """Training pairs as the client counts them."""


Sent = TypeVar("Sent", bound=Admitted)
"""An admitted update of one form."""
Sent_co = TypeVar("Sent_co", bound=Admitted, covariant=True)


class Gate(Protocol[Sent_co]):
    """Lets the replies of one round in, or refuses them."""

    def admit(self, client: str, reply: Message) -> Sent_co:
        """Return the update that a client's reply holds; raises Rejected."""


class UpdateForm(ABC, Generic[State, Sent]):
    """One form of updates."""

    @abstractmethod
    def start(self, shift: Shift | None, seed: int) -> State:
        """Make what the first round broadcasts: the given shift, or the identity where there is none."""

    @abstractmethod
    def restored(self, checkpoint: Checkpoint) -> State:
        """Return the state that a checkpoint holds, to the last bit."""

    @abstractmethod
    def shift(self, state: State) -> Shift:
        """Return the collective shift that a state stands for."""

    @abstractmethod
    def numbers(self, state: State) -> list[float] | None:
        """Return what a checkpoint must hold beside the shift."""

    @abstractmethod
    def requests(
        self, clients: Sequence[str], state: State, number: int, config: Config, holders: set[str]
    ) -> dict[str, RecordDict]:
        """Make the requests of a round, counted from 1; `holders` are the clients that have the basis."""

    def carrying(self, clients: Sequence[str], payload: bytes, config: Config) -> dict[str, RecordDict]:
        """Make one request for every client, all of it in the settings record.

        A record of its own costs a client three requests of Flower's, 880 bytes each.

        Args:
            clients: Names of the clients.
            payload: Packed coordinates, or a release.
            config: Settings of the work asked for.
        """
        record: Any = {**config, SHIFT_KEY: payload}
        return dict.fromkeys(clients, RecordDict({SETTINGS_RECORD: ConfigRecord(record)}))

    @abstractmethod
    def gate(self, state: State, number: int) -> Gate[Admitted]:
        """Make the gate of a round, counted from 1."""

    @abstractmethod
    def keeper(self) -> Callable[[Any], Sent]:
        """Make what keeps the updates that the gate of one round admits, until they are combined."""

    @abstractmethod
    def combine(self, admitted: Sequence[Sent], broadcast: State, number: int) -> State:
        """Make one state of a round's admitted updates; raises TooFew where the rule needs more."""


class ShiftForm(UpdateForm[Shift, FiledShift]):
    """Whole shifts, packed as they are released."""

    def __init__(self, header: ShiftHeader, settings: FederationSettings) -> None:
        """Set up the form.

        Args:
            header: Shape, task, base model and dtype of the shift.
            settings: Settings of the rounds.
        """
        self.header, self.settings = header, settings

    def start(self, shift: Shift | None, seed: int) -> Shift:
        """Return the shift, or the identity with a random R."""
        return shift if shift is not None else Shift.identity(self.header.shape, seed=seed)

    def restored(self, checkpoint: Checkpoint) -> Shift:
        """Return the checkpoint's shift."""
        return checkpoint.shift

    def shift(self, state: Shift) -> Shift:
        """Return the state, which is the shift."""
        return state

    def numbers(self, state: Shift) -> None:
        """Return nothing: the shift says all."""

    def requests(
        self, clients: Sequence[str], state: Shift, number: int, config: Config, holders: set[str]
    ) -> dict[str, RecordDict]:
        """Make one request for every client: the packed shift and the settings."""
        return self.carrying(clients, pack(state, self._header(number)), config)

    def carrying(self, clients: Sequence[str], payload: bytes, config: Config) -> dict[str, RecordDict]:
        """Make one request for every client, in the records that edges of every version read."""
        return shift_requests(clients, payload, config)

    def gate(self, state: Shift, number: int) -> AdmissionGate:
        """Make a gate for shifts with the header that was broadcast."""
        return AdmissionGate(
            header=self._header(number),
            round=number,
            max_norm=self.settings.max_norm,
            max_items=self.settings.max_items,
        )

    def keeper(self) -> Callable[[Update], FiledShift]:
        """Keep shifts in a file."""
        file = UpdateFile()
        return lambda update: FiledShift.keep(update, file)

    def combine(self, admitted: Sequence[FiledShift], broadcast: Shift, number: int) -> Shift:
        """Average the shifts as maps, or aggregate them under a robust rule, which needs all at once."""
        rule = self.settings.aggregation
        if rule == "mean":
            weights = [float(update.items) for update in admitted]
            return mean_shift(lambda: (update.shift for update in admitted), weights)
        shifts = [update.shift for update in admitted]
        return robust(rule, shifts, self.settings.assumed_malicious, broadcast)

    def _header(self, number: int) -> ShiftHeader:
        return replace(self.header, round=number - 1)


def shift_requests(clients: Sequence[str], payload: bytes, config: Config) -> dict[str, RecordDict]:
    """Make one request for every client, the same object for all: packed bytes and the settings.

    Args:
        clients: Names of the clients.
        payload: A packed shift, its coordinates, or a release.
        config: Settings of the work asked for.
    """
    array = Array(dtype="uint8", shape=(len(payload),), stype=SHIFT_STYPE, data=payload)
    record: Any = {**config}
    content = RecordDict(
        {SHIFT_RECORD: ArrayRecord({SHIFT_KEY: array}), SETTINGS_RECORD: ConfigRecord(record)}
    )
    return dict.fromkeys(clients, content)


def mean_loss(updates: Sequence[Admitted]) -> float | None:
    """Return the loss per item, clients weighted as in the aggregation; None if none shares it."""
    total, weight = 0.0, 0
    for update in updates:
        loss = update.metrics.get("loss")
        if isinstance(loss, float):
            total += update.items * loss / update.trained
            weight += update.items
    return total / weight if weight else None

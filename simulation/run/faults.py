"""Lost and malicious clients: replies of stage 1 are dropped or changed after honest clients made them."""

import random
from collections.abc import Iterable, Mapping
from typing import get_args

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message
from flwr.serverapp import Grid

from fedperfit.protocol.messages.broadcast import broadcast
from fedperfit.protocol.messages.keys import (
    CONTRIBUTE_TYPE,
    SETTINGS_RECORD,
    SHIFT_KEY,
    SHIFT_RECORD,
    SHIFT_STYPE,
    SUM_TYPE,
    UPDATE_KEY,
    UPDATE_RECORD,
)
from fedperfit.protocol.messages.settings import CoordinateSettings
from fedperfit.protocol.shift.codecs import decode, encode
from fedperfit.protocol.shift.coordinate_packing import TAG_BYTES, broadcast_numbers
from fedperfit.protocol.shift.packing import pack, unpack
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.flower_internals import NODE_UNAVAILABLE, InProcessGrid, set_reply_to
from fedperfit.simulation.run.settings import Attack

ATTACKS: tuple[str, ...] = get_args(Attack)
"""Attacks by name; `mixed` gives each malicious client one of the others in turn, except `collude`."""
_SINGLE_ATTACKS = tuple(attack for attack in ATTACKS if attack not in ("collude", "mixed"))
_SCALE = 100.0
"""Factor of the change under the attack `scale`."""
FACTORS = {"sign-flip": -1.0, "scale": _SCALE, "nans": float("nan")}
"""What the honest change is multiplied by, for the attacks that do no more than that."""


class FaultyGrid(InProcessGrid):
    """Grid some of whose clients are lost in a round, or malicious in all of them."""

    def __init__(
        self,
        grid: Grid,
        contributors: Mapping[int, int],
        *,
        dropout: float,
        malicious: float,
        attack: str,
        seed: int,
    ) -> None:
        """Choose the malicious clients.

        Args:
            grid: Grid that the messages go through.
            contributors: Numbers of the clients that take part in stage 1, by node id.
            dropout: Share of contributors that are lost in each round.
            malicious: Share of contributors that are malicious.
            attack: One of `ATTACKS`.
            seed: Seed of who is lost and who is malicious.
        """
        self._grid, self._contributors = grid, contributors
        self._dropout, self._attack, self._seed = dropout, attack, seed
        numbers = sorted(contributors.values())
        liars = random.Random(f"{seed}/liars").sample(numbers, round(malicious * len(numbers)))
        self._liars = {number: index for index, number in enumerate(sorted(liars))}
        self._requests: dict[str, Message] = {}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Push the messages, and keep them to know later what an update changed."""
        messages = list(messages)
        ids = list(self._grid.push_messages(messages))
        self._requests.update(zip(ids, messages, strict=True))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies, some of them changed or lost."""
        return [self._changed(reply) for reply in self._grid.pull_messages(message_ids)]

    def _changed(self, reply: Message) -> Message:
        request = self._requests.pop(reply.metadata.reply_to_message_id)
        if request.metadata.message_type == SUM_TYPE and not reply.has_error():
            return self._perhaps_lost(request, reply, f"member/{request.metadata.dst_node_id}")
        number = self._contributors.get(request.metadata.dst_node_id)
        if request.metadata.message_type != CONTRIBUTE_TYPE or number is None or reply.has_error():
            return reply
        reply = self._perhaps_lost(request, reply, str(number))
        if number in self._liars and not reply.has_error():
            in_turn = _SINGLE_ATTACKS[self._liars[number] % len(_SINGLE_ATTACKS)]
            kind = in_turn if self._attack == "mixed" else self._attack
            _lie(kind, request, reply)
        return reply

    def _perhaps_lost(self, request: Message, reply: Message, who: str) -> Message:
        """Return a reply, or an error in its place where the node is lost in this round."""
        draw = random.Random(f"{self._seed}/{request.metadata.group_id}/{who}")
        if draw.random() >= self._dropout:
            return reply
        lost = Message(Error(NODE_UNAVAILABLE, "Node Unavailable"), reply_to=request)
        set_reply_to(lost, reply.metadata.reply_to_message_id)
        return lost

    def get_node_ids(self) -> Iterable[int]:
        """List the ids of all nodes."""
        return self._grid.get_node_ids()


def _lie(kind: str, request: Message, reply: Message) -> None:
    """Put a lie in place of the update of a reply, whichever form it has."""
    sent = broadcast(request)
    if UPDATE_RECORD in reply.content:
        values = dict(reply.content.config_records[UPDATE_RECORD])
        update = values.get(UPDATE_KEY)
        if isinstance(update, bytes):
            wanted = CoordinateSettings.from_config({**request.content.config_records[SETTINGS_RECORD]})
            values[UPDATE_KEY] = attacked_update(kind, sent, update, wanted)
            reply.content[UPDATE_RECORD] = ConfigRecord(values)
        return
    lie = attacked(kind, sent, bytes(reply.content.array_records[SHIFT_RECORD][SHIFT_KEY].data))
    array = Array(dtype="uint8", shape=(len(lie),), stype=SHIFT_STYPE, data=lie)
    reply.content[SHIFT_RECORD] = ArrayRecord({SHIFT_KEY: array})


@torch.no_grad()
def attacked(kind: str, broadcast: bytes, update: bytes) -> bytes:
    """Make the update that a malicious client sends in place of its own.

    Args:
        kind: One of `ATTACKS`, except `mixed`.
        broadcast: Packed shift that the client received.
        update: Packed shift that its honest training made of it.
    """
    before, _ = unpack(broadcast)
    after, header = unpack(update)
    learned = before.W - before.R
    change = torch.cat([((after.W - after.R) - learned).flatten(), (after.b - before.b).flatten()])
    lie = lied(kind, change, torch.cat([learned.flatten(), before.b.flatten()]))
    if lie is None:
        W, b = after.R + 1, torch.ones_like(after.b)
    else:
        by_W, by_b = lie.split([learned.numel(), before.b.numel()])
        W, b = after.R + learned + by_W.view_as(learned), before.b + by_b.view_as(before.b)
    return pack(Shift(after.shape, R=after.R, W=W, b=b), header)


def attacked_update(kind: str, broadcast: bytes, update: bytes, wanted: CoordinateSettings) -> bytes:
    """Make the update of coordinates that a malicious client sends in place of its own.

    Args:
        kind: One of `ATTACKS`, except `mixed`.
        broadcast: Packed coordinates that the client received.
        update: Packed change that its honest training made.
        wanted: Codec of both.
    """
    tag, data = update[:TAG_BYTES], update[TAG_BYTES:]
    if kind == "nans":
        return tag + bytes([0xFF]) * len(data)
    learned = broadcast_numbers(broadcast)
    lie = lied(kind, decode(wanted.codec, data, len(learned)), learned)
    return tag + encode(wanted.codec, torch.ones_like(learned) if lie is None else lie, seed=0)


def lied(kind: str, change: torch.Tensor, learned: torch.Tensor) -> torch.Tensor | None:
    """Return what a malicious client makes of its honest change; None for a constant.

    Args:
        kind: One of `ATTACKS`, except `mixed`.
        change: (n,) honest change of the round.
        learned: (n,) what all rounds before have changed, which colluders agree to undo.
    """
    if kind == "collude":
        norm = float(learned.norm())
        return -learned * float(change.norm()) / norm if norm else -change
    by = FACTORS.get(kind)
    return None if by is None else by * change

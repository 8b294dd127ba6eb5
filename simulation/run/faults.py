"""Lost and malicious clients: replies of stage 1 are dropped or changed after honest clients made them."""

import random
from collections.abc import Iterable, Mapping
from typing import get_args

import torch
from flwr.app import Array, ArrayRecord, Error, Message
from flwr.serverapp import Grid

from fedperfit.protocol.messages.keys import CONTRIBUTE_TYPE, SHIFT_KEY, SHIFT_RECORD, SHIFT_STYPE
from fedperfit.protocol.shift.packing import pack, unpack
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.flower_internals import NODE_UNAVAILABLE, InProcessGrid, set_reply_to
from fedperfit.simulation.run.settings import Attack

ATTACKS: tuple[str, ...] = get_args(Attack)
"""Attacks by name; `mixed` gives each malicious client one of the others in turn."""
_SINGLE_ATTACKS = tuple(attack for attack in ATTACKS if attack != "mixed")
_SCALE = 100.0
"""Factor of the change under the attack `scale`."""


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
        number = self._contributors.get(request.metadata.dst_node_id)
        if request.metadata.message_type != CONTRIBUTE_TYPE or number is None or reply.has_error():
            return reply
        draw = random.Random(f"{self._seed}/{request.metadata.group_id}/{number}")
        if draw.random() < self._dropout:
            lost = Message(Error(NODE_UNAVAILABLE, "Node Unavailable"), reply_to=request)
            set_reply_to(lost, reply.metadata.reply_to_message_id)
            return lost
        if number in self._liars:
            in_turn = _SINGLE_ATTACKS[self._liars[number] % len(_SINGLE_ATTACKS)]
            kind = in_turn if self._attack == "mixed" else self._attack
            records = [message.content.array_records[SHIFT_RECORD] for message in (request, reply)]
            lie = attacked(kind, *(bytes(record[SHIFT_KEY].data) for record in records))
            array = Array(dtype="uint8", shape=(len(lie),), stype=SHIFT_STYPE, data=lie)
            reply.content[SHIFT_RECORD] = ArrayRecord({SHIFT_KEY: array})
        return reply

    def get_node_ids(self) -> Iterable[int]:
        """List the ids of all nodes."""
        return self._grid.get_node_ids()


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
    change, bias = (after.W - after.R) - (before.W - before.R), after.b - before.b
    by = {"sign-flip": -1.0, "scale": _SCALE, "nans": float("nan")}.get(kind)
    if by is None:
        W, b = after.R + 1, torch.ones_like(after.b)
    else:
        W, b = after.R + (before.W - before.R) + by * change, before.b + by * bias
    return pack(Shift(after.shape, R=after.R, W=W, b=b), header)

"""Clients that are lost, and clients that lie: replies of stage 1 changed after honest clients made them."""

import random
from collections.abc import Iterable, Mapping

import torch
from flwr.app import Array, ArrayRecord, Error, Message
from flwr.serverapp import Grid

from fedperfit.protocol.messages.keys import CONTRIBUTE_TYPE, SHIFT_KEY, SHIFT_RECORD, SHIFT_STYPE
from fedperfit.protocol.shift.packing import pack, unpack
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.flower_internals import NODE_UNAVAILABLE, InProcessGrid, set_reply_to

_KINDS = ("sign-flip", "scale", "nans", "constant")
ATTACKS = (*_KINDS, "mixed")
_SCALE = 100.0


class FaultyGrid(InProcessGrid):
    """A grid some of whose clients are lost in a round, or lie in all of them; the same for a seed."""

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
        """contributors: node id to number, of those that take part in stage 1."""
        self._grid, self._contributors = grid, contributors
        self._dropout, self._attack, self._seed = dropout, attack, seed
        numbers = sorted(contributors.values())
        liars = random.Random(f"{seed}/liars").sample(numbers, round(malicious * len(numbers)))
        self._liars = {number: index for index, number in enumerate(sorted(liars))}
        self._asked: dict[str, Message] = {}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Keeps what is asked, to know what a change is a change of."""
        messages = list(messages)
        ids = list(self._grid.push_messages(messages))
        self._asked.update(zip(ids, messages, strict=True))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies, some of them changed."""
        return [self._changed(reply) for reply in self._grid.pull_messages(message_ids)]

    def _changed(self, reply: Message) -> Message:
        asked = self._asked.pop(reply.metadata.reply_to_message_id)
        number = self._contributors.get(asked.metadata.dst_node_id)
        if asked.metadata.message_type != CONTRIBUTE_TYPE or number is None or reply.has_error():
            return reply
        draw = random.Random(f"{self._seed}/{asked.metadata.group_id}/{number}")
        if draw.random() < self._dropout:
            lost = Message(Error(NODE_UNAVAILABLE, "Node Unavailable"), reply_to=asked)
            set_reply_to(lost, reply.metadata.reply_to_message_id)
            return lost
        if number in self._liars:
            kind = self._attack if self._attack != "mixed" else _KINDS[self._liars[number] % len(_KINDS)]
            records = [message.content.array_records[SHIFT_RECORD] for message in (asked, reply)]
            lie = attacked(kind, *(bytes(record[SHIFT_KEY].data) for record in records))
            array = Array(dtype="uint8", shape=(len(lie),), stype=SHIFT_STYPE, data=lie)
            reply.content[SHIFT_RECORD] = ArrayRecord({SHIFT_KEY: array})
        return reply

    def get_node_ids(self) -> Iterable[int]:
        """All of them."""
        return self._grid.get_node_ids()


@torch.no_grad()
def attacked(kind: str, broadcast: bytes, update: bytes) -> bytes:
    """What a liar sends in place of its packed `update` to the packed `broadcast`."""
    before, _ = unpack(broadcast)
    after, header = unpack(update)
    change, bias = (after.W - after.R) - (before.W - before.R), after.b - before.b
    by = {"sign-flip": -1.0, "scale": _SCALE, "nans": float("nan")}.get(kind)
    if by is None:
        W, b = after.R + 1, torch.ones_like(after.b)
    else:
        W, b = after.R + (before.W - before.R) + by * change, before.b + by * bias
    return pack(Shift(after.shape, R=after.R, W=W, b=b), header)

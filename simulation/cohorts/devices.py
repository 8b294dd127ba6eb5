"""Devices that take their time, by a clock that stands still while anybody works.

An update is there when the clock has come to the moment at which its client's device would have sent it;
other messages take no time. Whoever waits for replies lets the clock go on to the next such moment at once,
so that hours of stragglers are simulated in the time that the training takes here.
"""

import heapq
import math
import random
from collections.abc import Iterable

from flwr.app import Message
from flwr.serverapp import Grid

from fedperfit.cloud.clients.clock import MACHINE, Clock
from fedperfit.protocol.messages.keys import CONTRIBUTE_TYPE
from fedperfit.protocol.system.flower_internals import InProcessGrid


class SimulatedClock(Clock):
    """Clock that goes on while somebody waits, from one appointment to the next."""

    def __init__(self) -> None:
        self._now = 0.0
        self._appointments: list[float] = []

    def now(self) -> float:
        """Return the simulated seconds."""
        return self._now

    def appoint(self, seconds: float) -> float:
        """Return the moment in so many seconds, at which whoever waits will look."""
        heapq.heappush(self._appointments, self._now + seconds)
        return self._now + seconds

    def wait(self, seconds: float, end: float) -> None:
        """Go on to the next appointment, or to the end where there is none before it.

        Args:
            seconds: Ignored: there is nothing to be seen before an appointment.
            end: When there is nothing to wait for any longer.
        """
        while self._appointments and self._appointments[0] <= self._now:
            heapq.heappop(self._appointments)
        moment = min(self._appointments[0], end) if self._appointments else end
        self._now = max(self._now, moment)

    def start(self, seconds: float) -> None:
        """Begin a training, or go on with one; what was appointed before is over.

        Args:
            seconds: Simulated seconds that it has taken so far.
        """
        self._now = seconds
        self._appointments.clear()

    @property
    def simulated(self) -> float:
        """Simulated seconds since the training began."""
        return self._now


class DeviceGrid(InProcessGrid):
    """Grid whose clients' updates come when their devices are through, each in its own time."""

    def __init__(self, grid: Grid, clock: SimulatedClock, *, median: float, spread: float, seed: int) -> None:
        """Give every client a device.

        A device takes median * exp(spread * z) seconds for every update, z standard normal.

        Args:
            grid: Grid that the messages go through; its clients answer whenever they are looked at.
            clock: Clock by which time is simulated.
            median: Seconds that the median device takes for an update.
            spread: Standard deviation of the logarithms of the devices' seconds.
            seed: Seed of the devices.
        """
        self._grid, self._clock = grid, clock
        self.seconds = {
            node: median * math.exp(spread * random.Random(f"{seed}/device/{number}").gauss(0, 1))
            for number, node in enumerate(grid.get_node_ids())
        }
        """Seconds that a client's device takes for an update, by node id."""
        self._due: dict[str, float] = {}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Push the messages; devices begin with updates at once."""
        messages = list(messages)
        ids = list(self._grid.push_messages(messages))
        for name, message in zip(ids, messages, strict=True):
            if message.metadata.message_type == CONTRIBUTE_TYPE:
                self._due[name] = self._clock.appoint(self.seconds[message.metadata.dst_node_id])
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that have been sent by now."""
        now = self._clock.now()
        there = [name for name in message_ids if self._due.get(name, now) <= now]
        for name in there:
            self._due.pop(name, None)
        return self._grid.pull_messages(there)

    def get_node_ids(self) -> Iterable[int]:
        """List the ids of all nodes."""
        return self._grid.get_node_ids()


def on_devices(grid: Grid, *, median: float, spread: float, seed: int) -> tuple[Grid, Clock]:
    """Return a grid whose clients have devices, and its clock; the grid and the machine's if they have none.

    Args:
        grid: Grid that the messages go through.
        median: Seconds that the median device takes for an update; 0 simulates no time.
        spread: Standard deviation of the logarithms of the devices' seconds.
        seed: Seed of the devices.
    """
    if not median:
        return grid, MACHINE
    clock = SimulatedClock()
    return DeviceGrid(grid, clock, median=median, spread=spread, seed=seed), clock

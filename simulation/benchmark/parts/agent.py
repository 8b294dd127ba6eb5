"""Gain of an agent that stays up: a round against loading the model anew, and how soon it answers."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import grpc
from rich.table import Table

from fedperfit.edge.audit.rates import OTHERS, STATUS, Rate
from fedperfit.edge.deployment.endpoint import connect
from fedperfit.edge.deployment.home import AgentSettings, Home
from fedperfit.protocol.messages.settings import TrainingSettings
from fedperfit.protocol.model.base_model import read_card
from fedperfit.protocol.schema import bridge_pb2, bridge_pb2_grpc
from fedperfit.protocol.shift.packing import ShiftHeader, pack
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import RunFailed
from fedperfit.protocol.system.files import write_json, write_json_lines
from fedperfit.protocol.system.flower import environment
from fedperfit.protocol.system.processes import Children, wait_until
from fedperfit.protocol.tasks import task_by_name
from fedperfit.protocol.trust.policy import Policy, sign_policy, write_policy
from fedperfit.protocol.trust.signing import SigningKey
from fedperfit.simulation.benchmark.record import Record
from fedperfit.simulation.cluster.scratch import scratch
from fedperfit.simulation.data.lamp import open_lamp
from fedperfit.simulation.run.settings import RunSettings
from fedperfit.simulation.world.build import write_world
from fedperfit.simulation.world.settings import WorldSize

_TASK = "LaMP_2M"
_LONG = 100_000
"""Epochs of a training that is stopped when the answers beside it are timed."""
ROUNDS = 4
"""Rounds measured either way, of which the fastest counts."""
ASKED = 100
"""Times that `status` is asked, idle and again in training: two a second, as an agent's rate allows."""
_START_SECONDS = 600.0


def run(base_model: str, record: Record) -> list[dict[str, Any]]:
    """Measure the seconds of a round either way, and of `status` while the agent trains.

    Args:
        base_model: Folder or hub name; the embedded model if empty.
        record: Measurements on file.
    """

    def take() -> dict[str, Any]:
        with scratch() as folder:
            return _measure(folder, base_model or "embedded")

    return [record.measure("agent", take)]


def _measure(folder: Path, base_model: str) -> dict[str, Any]:
    settings = RunSettings.read("quickstart", {"task": _TASK, "base-model": base_model})
    card = read_card(base_model)
    header = ShiftHeader(settings.shape(card), _TASK, card.fingerprint, round=0)
    home = _person(folder, base_model)
    packed = pack(Shift.identity(header.shape, seed=0), header)
    training = settings.collective_training()
    with _agent(home) as bridge:
        _round(bridge, packed, training)
        staying = min(_spaced(lambda: _round(bridge, packed, training), ROUNDS, OTHERS))
        idle = _spaced(lambda: bridge.Status(bridge_pb2.StatusRequest()), ASKED, STATUS)
        long = bridge.Contribute.future(_request(packed, training.replace(epochs=_LONG)))
        time.sleep(2)
        busy = _spaced(lambda: bridge.Status(bridge_pb2.StatusRequest()), ASKED, STATUS)
        if long.done():
            raise RunFailed("the training ended before `status` was measured beside it")
        long.cancel()

    def anew() -> None:
        with _agent(home) as bridge:
            _round(bridge, packed, training)

    loading = min(_seconds(anew) for _ in range(ROUNDS))
    return {
        "staying_s": staying,
        "loading_s": loading,
        "status_idle_ms": 1e3 * median(idle),
        "status_ms": 1e3 * median(busy),
        "status_99_ms": 1e3 * sorted(busy)[int(0.99 * (len(busy) - 1))],
        "status_most_ms": 1e3 * max(busy),
    }


def _person(folder: Path, base_model: str) -> Home:
    task = task_by_name(_TASK)
    world = write_world(
        folder / "world", task, WorldSize(others=1, targets=1, new=1, history=64, questions=1), seed=0
    )
    data = open_lamp(world, task, folder / "tables")
    home = Home(folder / "home")
    write_json_lines(home.folder / "history.jsonl", data.user("targets", data.users("targets")[0]).history)
    write_json(home.folder / "client.json", {"name": "ada", "task": _TASK, "shares_metrics": False})
    key = SigningKey()
    AgentSettings(base_model=base_model, release_key=key.public).write(home)
    write_policy(home.policy, sign_policy(_policy(base_model), key))
    return home


def _policy(base_model: str) -> Policy:
    """What the person agreed to: rounds of the quickstart's, as many and as long as are timed here."""
    settings, card = RunSettings.read("quickstart", {"base-model": base_model}), read_card(base_model)
    shape, training = settings.shape(card), settings.collective_training()
    return Policy(
        version=1,
        fingerprint=card.fingerprint,
        task=_TASK,
        prompt_form=training.prompt_form,
        layers=list(shape.layers),
        rank=shape.rank,
        hidden_size=shape.hidden_size,
        positions=str(shape.positions),
        personal_rank=shape.rank,
        least_rate=training.learning_rate,
        most_rate=training.learning_rate,
        least_clip=training.clip_norm,
        most_clip=training.clip_norm,
        batch_size=training.batch_size,
        most_epochs=_LONG,
        most_steps=_LONG * 64,
        max_items=training.max_items,
        contribute_per_day=1000,
    )


@contextmanager
def _agent(home: Home) -> Iterator[bridge_pb2_grpc.BridgeStub]:
    with Children() as children:
        command = [sys.executable, "-P", "-m", "fedperfit.edge.cli.main", "agent", str(home.folder)]
        log = home.folder / "agent.log"
        child = children.start("agent", command, log=log, environment=environment(home.folder))

        def answers() -> bool:
            try:
                with connect(home.bridge) as channel:
                    grpc.channel_ready_future(channel).result(timeout=1)
                return True
            except grpc.FutureTimeoutError:
                return child.process.poll() is not None

        if not wait_until(answers, _START_SECONDS) or child.process.poll() is not None:
            raise RunFailed(f"the agent did not start: {log.read_text()[-200:]}")
        with connect(home.bridge) as channel:
            yield bridge_pb2_grpc.BridgeStub(channel)


def _request(packed: bytes, training: TrainingSettings) -> bridge_pb2.ContributeRequest:
    return bridge_pb2.ContributeRequest(shift=packed, training=bridge_pb2.Training(**vars(training)))


def _round(bridge: bridge_pb2_grpc.BridgeStub, packed: bytes, training: TrainingSettings) -> None:
    bridge.Contribute(_request(packed, training))


def _spaced(act: Callable[[], object], times: int, rate: Rate) -> list[float]:
    """Measure a request several times, no sooner after each other than the agent's rate allows for good."""
    taken = []
    for _ in range(times):
        taken.append(_seconds(act))
        time.sleep(1 / rate.per_second)
    return taken


def _seconds(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """Tabulate seconds of a round, their ratio, and milliseconds to an answer."""
    printed = Table(title="an agent that stays up")
    for name in ("round, staying s", "round, loading s", "ratio"):
        printed.add_column(name, justify="right")
    for name in ("status idle ms", "status training ms", "99 %", "most"):
        printed.add_column(name, justify="right")
    for row in rows:
        if "error" in row:
            printed.add_row(row["error"])
            continue
        printed.add_row(
            *(f"{row['staying_s']:.2f}", f"{row['loading_s']:.2f}"),
            f"{row['loading_s'] / row['staying_s']:.1f}",
            *(f"{row[key]:.1f}" for key in ("status_idle_ms", "status_ms", "status_99_ms", "status_most_ms")),
        )
    return printed

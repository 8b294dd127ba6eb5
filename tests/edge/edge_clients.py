"""Client folders for tests, with a world user's history and questions."""

import random
from pathlib import Path

from fedperfit.edge.agent.history import History, write_history
from fedperfit.protocol.messages.settings import EvaluationSettings
from fedperfit.protocol.tasks import TASKS
from fedperfit.simulation.world.build import WORLD_TASKS


def evaluation(stage: str) -> EvaluationSettings:
    return EvaluationSettings(stage=stage, slot="full", additive=False, batch_size=8, prompt_form="lamp")


def write_client(
    folder: Path, task: str = "LaMP_2M", *, seed: str = "client", items: int = 16, questions: int = 8
) -> Path:
    """A client's folder with a world user's history and questions."""
    rng = random.Random(seed)
    world_task, lamp = WORLD_TASKS[task], TASKS[task]
    taste = world_task.taste(rng, community=True)

    def item() -> dict[str, str]:
        drawn = world_task.item(rng, taste)
        return {lamp.field: drawn.text, lamp.answer: world_task.answer(rng, taste, drawn.cues)}

    held = [item() for _ in range(questions)]
    history = History(
        name=f"targets-{sum(seed.encode())}",
        task=lamp,
        shares_metrics=True,
        items=[item() for _ in range(items)],
        answered=[],
        questions=[
            {"id": str(n), "input": lamp.instruction + one[lamp.field], "gold": one[lamp.answer]}
            for n, one in enumerate(held)
        ],
    )
    write_history(folder, history)
    return folder

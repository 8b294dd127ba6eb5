"""The settings of one simulated run: those of the job, and who takes part."""

from dataclasses import dataclass

from fedperfit.cloud.job.settings import JobSettings
from fedperfit.protocol.system.errors import InputError
from fedperfit.simulation.run.faults import ATTACKS


@dataclass(frozen=True, kw_only=True)
class RunSettings(JobSettings):
    """One run; the keys of a preset are these names with hyphens."""

    data: str
    """Folder with the task's LaMP files, or `world`."""
    device: str = "auto"
    dtype: str = "auto"
    """Of the base model: auto, float32 or bfloat16."""
    cache_gib: float = -1.0
    """GiB a process keeps of what the base model makes of items; -1 is a quarter of the memory, 0 nothing."""
    encoder: str = ""
    """Sentence encoder (folder or hub name) that selects items for directions; empty: the base model."""
    share_metrics: bool = True
    """What the simulated owners allow; without it there is nothing to report."""
    others: int = 40
    """Users that train the collective shift: of the world this many, of real data at most this many."""
    targets: int = 24
    new: int = 24
    """New users for cold start; real data without such a group uses the targets."""
    world_history: int = 64
    world_questions: int = 20
    history_lengths: list[int]
    """Cold start by history length; empty for none."""
    collective_sizes: list[int]
    """Cold start by number of collective clients, two at least with `warm_start`; empty for none."""
    collective_study_items: int = 16
    """History items of a new user in the study by number of collective clients."""
    bootstrap_samples: int = 2000
    dropout: float = 0.0
    """Share of the clients asked that are lost in each round."""
    malicious: float = 0.0
    """Share of the others that lie in every round."""
    attack: str = "sign-flip"
    """What liars send: `sign-flip`, `scale` (100 times the change), `nans`, `constant`, or `mixed`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("others", "targets", "new", "world_history", "world_questions"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: must be at least 1")
        for name in ("dropout", "malicious"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: must be in 0..1")
        if self.attack not in ATTACKS:
            raise InputError(f"attack={self.attack!r}: expected one of {', '.join(ATTACKS)}")
        for name, least in (("history_lengths", 0), ("collective_sizes", 2 if self.warm_start else 1)):
            if any(value < least for value in getattr(self, name)):
                raise InputError(f"{name}={getattr(self, name)}: values must be at least {least}")

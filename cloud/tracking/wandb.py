"""Weights & Biases: offline by default, online where the user is logged in and asks for it."""

import io
import os
import secrets
from collections.abc import Mapping

from PIL import Image

from fedperfit.cloud.tracking.tracker import PROJECT, End, Results, Tracker
from fedperfit.protocol.system.errors import InputError

MODE = "WANDB_MODE"
"""Variable of wandb's by which a user asks for `online`."""
_ONLINE = ("online", "run", "shared")
"""Its values with which a run is sent as it comes."""
_PATIENCE = {"WANDB_INIT_TIMEOUT": "15", "WANDB_FINISH_TIMEOUT": "60"}
"""Seconds that wandb waits for its server at both ends of a run, unless the user says so: else a minute and a
half, and for ever. What was not sent is on disk for `wandb sync`.
"""
_CODES = {End.FINISHED: 0, End.FAILED: 1, End.STOPPED: 255}
"""Exit codes by which wandb knows how a run ended."""
_MODES = ("offline", "dryrun", "disabled", *_ONLINE)


class WeightsAndBiases(Tracker):
    """A run below `wandb/`, or where WANDB_DIR says; `wandb sync` sends what is kept there."""

    name = "wandb"

    def begin(self, known: str) -> None:
        os.environ.update(_PATIENCE | os.environ)
        mode = os.environ.get(MODE) or "offline"
        if mode not in _MODES:
            raise InputError(f"{MODE}={mode}: expected one of {', '.join(_MODES)}")
        if mode in _ONLINE and not self.library.api.api_key:
            raise InputError(f"{MODE}={mode}: nobody is logged in; `wandb login` first, or unset {MODE}")
        self.identity = known or secrets.token_hex(4)
        quiet = self.library.Settings(
            silent=True,
            console="off",
            disable_code=True,
            disable_git=True,
            disable_job_creation=True,
            x_disable_stats=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            host="",
        )
        self._run = self.library.init(
            project=PROJECT,
            name=self.run.folder.name,
            id=self.identity,
            resume="allow" if known else None,
            job_type=self.run.command,
            config=dict(self.run.settings),
            mode=mode,
            settings=quiet,
        )
        self._series: set[str] = set()

    def figures(self, series: str, step: int, values: Mapping[str, float]) -> None:
        if series not in self._series:
            self._series.add(series)
            self._run.define_metric(f"{series}/*", step_metric=f"{series}/step")
        self._run.log({f"{series}/step": step} | {f"{series}/{name}": v for name, v in values.items()})

    def results(self, results: Results) -> None:
        self._run.summary.update({f"final/{name}": value for name, value in results.figures.items()})
        pictures = {
            title: self.library.Image(Image.open(io.BytesIO(png))) for title, png in results.pictures.items()
        }
        if pictures:
            self._run.log(pictures)
        if results.report:
            self._run.summary["report"] = results.report

    def close(self, end: End) -> None:
        self._run.finish(exit_code=_CODES[end])

"""TensorBoard: event files in the run folder."""

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image

from fedperfit.cloud.tracking.tracker import End, Results, Tracker

FOLDER = "tensorboard"
"""Folder of the event files in the run folder."""


class TensorBoard(Tracker):
    """A run whose event files `tensorboard --logdir` reads; a resumed one adds a file."""

    name = "tensorboard"

    def begin(self, known: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self.run.folder / FOLDER))
        rows = "\n".join(f"| {key} | {value} |" for key, value in self.run.settings.items())
        self._text("settings", f"| setting | {self.run.command} |\n|---|---|\n{rows}")

    def figures(self, series: str, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"{series}/{name}", value, step)
        self._writer.flush()

    def results(self, results: Results) -> None:
        self.figures("final", 0, results.figures)
        for title, png in results.pictures.items():
            pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
            self._writer.add_image(title, pixels, dataformats="HWC")
        if results.report:
            self._text("report", f"`{results.report}`")

    def close(self, end: End) -> None:
        self._writer.close()

    def _text(self, tag: str, text: str) -> None:
        self._writer.add_text(tag, text)

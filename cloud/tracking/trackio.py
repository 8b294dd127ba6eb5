"""Trackio: its local database, which `trackio show` reads."""

import io
from collections.abc import Mapping
from contextlib import redirect_stdout

from PIL import Image

from fedperfit.cloud.tracking.tracker import PROJECT, End, Results, Tracker


class Trackio(Tracker):
    """A run of the project `fedperfit`."""

    name = "trackio"

    def begin(self, known: str) -> None:
        self.identity = known or self.run.folder.name
        with redirect_stdout(io.StringIO()):  # it tells of itself
            self._run = self.library.init(
                project=PROJECT,
                name=self.identity,
                resume="allow" if known else "never",
                config={"command": self.run.command, **self.run.settings},
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        self._run.config["_Username"] = None  # an account's name, where somebody is logged in

    def figures(self, series: str, step: int, values: Mapping[str, float]) -> None:
        self._run.log({f"{series}/step": step} | {f"{series}/{name}": v for name, v in values.items()})

    def results(self, results: Results) -> None:
        final: dict[str, object] = {f"final/{name}": value for name, value in results.figures.items()}
        for title, png in results.pictures.items():
            final[title] = self.library.Image(Image.open(io.BytesIO(png)))
        if results.report:
            final["report"] = results.report
        self._run.log(final)

    def close(self, end: End) -> None:
        with redirect_stdout(io.StringIO()):
            self.library.finish()

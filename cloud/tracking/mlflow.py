"""MLflow: its store on this machine, or the one that MLFLOW_TRACKING_URI names."""

import io
import re
from collections.abc import Mapping

from PIL import Image

from fedperfit.cloud.tracking.tracker import PROJECT, Results, Tracker

_LONGEST = 6000
"""Characters of the longest value that MLflow takes."""
_NOT_IN_NAMES = re.compile(r"[^\w\-./ ]")


class MLflow(Tracker):
    """A run of the experiment `fedperfit`."""

    name = "mlflow"

    def begin(self, known: str) -> None:
        self._client = self.library.tracking.MlflowClient()
        if known:
            self.identity = known
            self._client.update_run(known, status="RUNNING")
            return
        found = self._client.get_experiment_by_name(PROJECT)
        experiment = found.experiment_id if found else self._client.create_experiment(PROJECT)
        tags = {"command": self.run.command}
        run = self._client.create_run(experiment, run_name=self.run.folder.name, tags=tags)
        self.identity = run.info.run_id
        for key, value in self.run.settings.items():
            self._client.log_param(self.identity, key, str(value)[:_LONGEST])

    def figures(self, series: str, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            key = _NOT_IN_NAMES.sub("_", f"{series}/{name}")
            self._client.log_metric(self.identity, key, value, step=step)

    def results(self, results: Results) -> None:
        self.figures("final", 0, results.figures)
        for title, png in results.pictures.items():
            file = f"{_NOT_IN_NAMES.sub('_', title)}.png"
            self._client.log_image(self.identity, Image.open(io.BytesIO(png)), artifact_file=file)
        if results.report:
            self._client.set_tag(self.identity, "report", results.report)

    def close(self, *, failed: bool) -> None:
        self._client.set_terminated(self.identity, status="FAILED" if failed else "FINISHED")

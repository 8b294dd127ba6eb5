"""MLflow: its store on this machine, or the one that MLFLOW_TRACKING_URI names."""

import io
import logging
import os
import re
import sqlite3
from collections.abc import Mapping
from contextlib import closing

from PIL import Image

from fedperfit.cloud.tracking.tracker import PROJECT, End, Results, Tracker

_LONGEST = 6000
"""Characters of the longest value that MLflow takes."""
_NOT_IN_NAMES = re.compile(r"[^\w\-./ ]")


_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
"""Tries after the first, and seconds of each, that a server gets unless the user says so: else minutes."""
_STATES = {End.FINISHED: "FINISHED", End.FAILED: "FAILED", End.STOPPED: "KILLED"}
_SQLITE = "sqlite:///"
_NOT_THERE = "RESOURCE_DOES_NOT_EXIST"


def _check_database(uri: str) -> None:
    """Raise an error where a database file cannot be opened, which MLflow itself tries for two minutes."""
    if uri.startswith(_SQLITE):
        with closing(sqlite3.connect(uri.removeprefix(_SQLITE))) as database:
            database.execute("PRAGMA schema_version")


class MLflow(Tracker):
    """A run of the experiment `fedperfit`."""

    name = "mlflow"

    def begin(self, known: str) -> None:
        os.environ.update(_PATIENCE | os.environ)
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it tells of every retry
        _check_database(self.library.get_tracking_uri())
        self._client = self.library.tracking.MlflowClient()
        if known and self._goes_on(known):
            self.identity = known
            return
        found = self._client.get_experiment_by_name(PROJECT)
        experiment = found.experiment_id if found else self._client.create_experiment(PROJECT)
        tags = {"command": self.run.command}
        run = self._client.create_run(experiment, run_name=self.run.folder.name, tags=tags)
        self.identity = run.info.run_id
        for key, value in self.run.settings.items():
            self._client.log_param(self.identity, key, str(value)[:_LONGEST])

    def _goes_on(self, known: str) -> bool:
        """Open a run again; false where there is none, as in another store than the one it was begun in."""
        try:
            self._client.update_run(known, status="RUNNING")
        except self.library.exceptions.MlflowException as error:
            if error.error_code != _NOT_THERE:
                raise
            return False
        return True

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

    def close(self, end: End) -> None:
        self._client.set_terminated(self.identity, status=_STATES[end])

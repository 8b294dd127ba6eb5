"""Files of this machine in the object store of a cluster, from which workers read them."""

from pathlib import Path
from typing import Any

from fedperfit.protocol.system.errors import RunFailed
from fedperfit.simulation.cluster.folders import paths_in, read_folder
from fedperfit.simulation.optional import required


class Store:
    """Contents of files and folders in the cluster's object store, each put there once."""

    def __init__(self) -> None:
        """Begin with nothing in the store."""
        self._ray = required("ray")
        self._kept: dict[Path, tuple[object, Any]] = {}
        """Stamp and reference of each path."""

    def reference(self, path: Path) -> Any:
        """Return a reference to a file's bytes or to a folder's files; what has changed is stored anew.

        Args:
            path: The file or folder.

        Raises:
            RunFailed: The store takes no more, neither in memory nor on disk.
        """
        whole = path.is_dir()
        states = [(each, each.stat()) for each in (paths_in(path) if whole else [path])]
        stamp = [(each, state.st_mtime_ns, state.st_size) for each, state in states]
        if self._kept.get(path, (None, None))[0] != stamp:
            content = read_folder(path) if whole else path.read_bytes()
            self._kept[path] = stamp, self._put(content)
        return self._kept[path][1]

    def _put(self, content: object) -> Any:
        try:
            return self._ray.put(content)
        except self._ray.exceptions.RayError as error:
            why = " ".join(str(error).split())[:200]
            raise RunFailed(f"the cluster's object store is full: {why}; --resume continues") from None

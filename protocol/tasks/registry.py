"""Tasks found by name, file or text: the one place where what a user writes becomes a task."""

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path

from fedperfit.protocol.system.errors import InputError, MissingFileError
from fedperfit.protocol.system.files import from_home
from fedperfit.protocol.tasks.task import Task
from fedperfit.protocol.tasks.templates import nearest_of

_SUFFIX = ".toml"
_met: dict[str, Task] = {}
"""Own tasks by id that this process has read, so that a shift's header, which has the id alone, names one."""


@cache
def _shipped() -> dict[str, Task]:
    folder = resources.files("fedperfit.configs") / "tasks"
    files = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(_SUFFIX))
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in files}
    return {task.name: task for task in (Task.read(text, name, True) for name, text in texts.items())}


class _Shipped(Mapping[str, Task]):
    """The tasks of `configs/tasks` by name, read when one is first asked for."""

    def __getitem__(self, name: str) -> Task:
        return _shipped()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_shipped())

    def __len__(self) -> int:
        return len(_shipped())


TASKS: Mapping[str, Task] = _Shipped()
"""All tasks that ship, by name."""


def task_by_name(name: str) -> Task:
    """Return the task that a name, a file or a text stands for.

    Args:
        name: A task that ships (`LaMP_2M`, also written `lamp-2m`), a `.toml` file, the text of such a file,
            or the id of a task that this process has read before.

    Raises:
        InputError: There is none of that name, or the file is not a task's; one line.
    """
    if "\n" in name:
        return _own(name, "the text of a task")
    if name.endswith(_SUFFIX):
        return _own(_text(from_home(name)), name)
    if name in _met:
        return _met[name]
    written = {known.lower().replace("_", "-"): known for known in TASKS}
    found = written.get(name.lower().replace("_", "-"))
    if found is None:
        raise InputError(
            f"unknown task {name!r}: expected a .toml file or one of {', '.join(TASKS)}; the nearest is "
            f"{nearest_of(name, list(TASKS))}"
        )
    return TASKS[found]


def own_text(id: str) -> str:
    """Return the text of the file of an own task that this process has read; empty for one that ships.

    Args:
        id: Id of the task, as a shift's header has it.
    """
    return _met[id].reference if id in _met else ""


def id_of_text(text: str) -> str:
    """Return the id of the task whose file has this text, which may be anybody's; it is not remembered.

    Raises:
        MalformedFileError: It is not the file of a task.
    """
    return _parsed(text, "the text of a task").id


def task_id(name: str) -> str:
    """Return the id of the task that a name, a file or a text stands for; raises as `task_by_name` does."""
    return task_by_name(name).id


def _own(text: str, source: str) -> Task:
    task = _parsed(text, source)
    return task if task.id in TASKS else _met.setdefault(task.id, task)


def _parsed(text: str, source: str) -> Task:
    task = Task.read(text, source)
    shipped = TASKS.get(task.name)
    return shipped if shipped is not None and shipped.digest == task.digest else task


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise InputError(f"{str(path)!r}: no name of a file") from None

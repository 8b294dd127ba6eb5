"""Classes found by name: those of the modules of a package, and those of a user's own Python files."""

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from fedperfit.protocol.system.errors import InputError, line_of


def found_by_name(
    parent: type[Any], package: ModuleType, files: Sequence[Path], kind: str
) -> dict[str, type[Any]]:
    """Return the classes of a kind that have a name, by name.

    Args:
        parent: What they derive from.
        package: Package whose modules are searched.
        files: Python files that are searched too; each must hold one.
        kind: What such a class is called in an error, e.g. `method`.

    Raises:
        InputError: A file cannot be imported or holds none, or a name is used twice.
    """
    modules = [
        importlib.import_module(f"{package.__name__}.{module.name}")
        for module in pkgutil.iter_modules(package.__path__)
    ]
    by_name: dict[str, type[Any]] = {}
    for module in [*modules, *(_import_file(path, kind) for path in files)]:
        own = [value for value in vars(module).values() if _belongs(value, parent, module.__name__)]
        if not own and module not in modules:
            raise InputError(f"{module.__file__}: holds no {parent.__name__} with a name")
        for each in own:
            if each.name in by_name:
                raise InputError(f"two {kind}s are called {each.name!r}")
            by_name[each.name] = each
    return by_name


def _belongs(value: Any, parent: type[Any], module: str) -> bool:
    return (
        isinstance(value, type)
        and issubclass(value, parent)
        and value.__module__ == module
        and hasattr(value, "name")
    )


def _import_file(path: Path, kind: str) -> ModuleType:
    name = f"fedperfit_{kind}_{path.stem}"
    try:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise InputError("not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever a file raises when it is imported
        told = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: {line_of(told, 200)}") from None
    return module

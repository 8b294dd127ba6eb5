"""First-party imports of a source tree, read from its syntax without importing anything."""

import ast
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "fedperfit"
Chain = tuple[str, ...]


@dataclass(frozen=True)
class Tree:
    """Modules of the package and what each imports."""

    files: Mapping[str, Path]
    """Source file of each module, by dotted name."""
    imports: Mapping[str, frozenset[str]]
    """What the import statements of each module name: first-party modules, libraries by their first word."""
    loads: Mapping[str, frozenset[str]]
    """What importing each module runs at once: its imports, and the packages above it and above them."""

    def chain(self, sources: Iterable[str], targets: Iterable[str]) -> Chain | None:
        """The shortest way on which importing one of the sources could load one of the targets.

        Args:
            sources: modules or packages to start from; a package stands for everything in it.
            targets: modules, packages or third-party libraries.

        Returns:
            The modules from source to target, both included, or None when there is no way.
        """
        within, reached = _prefix(tuple(targets)), _prefix(tuple(sources))
        before: dict[str, str | None] = {name: None for name in sorted(self.files) if reached(name)}
        queue = deque(before)
        while queue:
            name = queue.popleft()
            if within(name):
                return _path(before, name)
            for loaded in sorted(self.loads.get(name, ())):
                if loaded not in before:
                    before[loaded] = name
                    queue.append(loaded)
        return None


def read_tree(root: Path) -> Tree:
    """Read the package under `root/src`, through the links to its source folders.

    Imports inside functions count like those at the top of a file; those under `if TYPE_CHECKING:` never
    run and do not count.

    Args:
        root: folder of the repository.

    Raises:
        FileNotFoundError: there is no package.
    """
    package = root / "src" / PACKAGE
    if not package.is_dir():
        raise FileNotFoundError(f"{package}: no such package")
    files = {_module(path, package.parent): path for path in python_files(package)}
    imports = {name: frozenset(_imports(name, path, files)) for name, path in files.items()}
    loads = {
        name: frozenset(above for target in (name, *targets) for above in _with_packages(target)) - {name}
        for name, targets in imports.items()
    }
    return Tree(files, imports, loads)


def python_files(folder: Path) -> Iterator[Path]:
    """Every Python source file under a folder, links to folders followed, generated files left out."""
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.name.startswith((".", "__")):
            yield from python_files(entry)
        elif entry.suffix == ".py" and not entry.stem.endswith(("_pb2", "_pb2_grpc")):
            yield entry


def _module(path: Path, source: Path) -> str:
    parts = path.relative_to(source).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(name: str, path: Path, files: Mapping[str, Path]) -> Iterator[str]:
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    for node in running(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (_known(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield _known(inner if inner in files else base)


def running(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes of a syntax tree except what stands under `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for rest in node.orelse:
                yield from (rest, *running(rest))
        else:
            yield node
            yield from running(node)


def _known(name: str) -> str:
    return name if name.split(".")[0] == PACKAGE else name.split(".")[0]


def _with_packages(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def _prefix(names: tuple[str, ...]) -> Callable[[str], bool]:
    return lambda name: name in names or name.startswith(tuple(f"{prefix}." for prefix in names))


def _path(before: Mapping[str, str | None], end: str) -> Chain:
    chain = [end]
    while (previous := before[chain[0]]) is not None:
        chain.insert(0, previous)
    return tuple(chain)

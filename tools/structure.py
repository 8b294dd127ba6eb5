"""Print what holds the house together, and fail where it does not: `python -m tools.structure`.

Folders and their sizes, rooms and the arrows between them, contracts about what may reach what, and how
much of the code documents its parameters. Everything is read from the source; nothing is imported.
"""

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from tools.docstrings import Docstrings, count
from tools.imports import PACKAGE, Tree, python_files, read_tree

MOST_FILES = 14
"""Python files a folder may have."""

FLOORS: Mapping[str, Sequence[str]] = {
    "protocol": (
        "system",
        "tasks model schema sandboxes privacy",
        "shift",
        "settings people secure_sums",
        "trust",
        "messages presets doctor",
        "fitting portable",
    ),
    "cloud": (
        "clients privacy publishing",
        "rounds",
        "job",
        "deployment tracking",
        "monitoring",
        "enrolment",
        "doctor",
        "cli server_app",
    ),
    "edge": (
        "engine vault audit consent records sandbox releases",
        "writing fitting sums",
        "agent",
        "chameleon asking learning",
        "deployment",
        "web enrolment client_app fetcher_app supernode_app",
        "doctor",
        "cli installed_app",
    ),
    "simulation": (
        "storages",
        "optional memory plugins world stored_models sent_scan",
        "cluster study_folder",
        "data",
        "basis report client_app",
        "cohorts",
        "compare run",
        "analyze audit benchmark communication finished server_app watch",
        "settings_cli tuning_cli plan",
        "cli",
        "__main__",
    ),
}
"""Rooms of each source folder, lowest first: a room imports only from floors below its own."""

FOLDER_FLOORS = ("protocol configs", "cloud edge", "simulation")
"""Source folders, lowest first; above them stands the public API in `src/fedperfit`."""


@dataclass(frozen=True)
class Contract:
    """Modules that must never load others, not even through a third or inside a function."""

    text: str
    sources: Sequence[str]
    targets: Sequence[str]


CONTRACTS = (
    Contract("cloud never reaches edge", ("cloud",), ("edge",)),
    Contract("edge never reaches cloud", ("edge",), ("cloud",)),
    Contract("protocol reaches neither", ("protocol",), ("cloud", "edge", "simulation")),
    Contract("nothing reaches simulation", ("cloud", "edge", "protocol", "configs"), ("simulation",)),
    Contract(
        "the engine knows no vault, agent, deployment",
        ("edge.engine",),
        ("edge.vault", "edge.agent", "edge.deployment", "edge.web", "edge.cli"),
    ),
    Contract(
        "what talks to the cloud reaches no torch, engine, agent, vault",
        ("edge.client_app", "edge.installed_app", "edge.fetcher_app", "edge.supernode_app"),
        ("edge.engine", "edge.agent", "edge.vault", "torch!", "transformers!"),
    ),
)
"""First-party names are below `fedperfit`; a `!` marks a third-party library."""


def full_names(names: Sequence[str]) -> list[str]:
    """Dotted names of a contract's modules and libraries."""
    return [name[:-1] if name.endswith("!") else f"{PACKAGE}.{name}" for name in names]


def crowded(root: Path) -> tuple[tuple[str, int], list[str]]:
    """Count the Python files of every folder, those of the tests too.

    Returns:
        The largest folder with its number of files, and a fault for each folder that has too many.
    """
    tops = [root / name for name in (*FLOORS, "configs", "src", "tests", "tools", "examples")]
    paths = {path.resolve() for top in tops if top.is_dir() for path in python_files(top)}
    sizes = Counter(str(path.parent.relative_to(root.resolve())) for path in paths)
    faults = [f"{name}: {size} Python files" for name, size in sorted(sizes.items()) if size > MOST_FILES]
    return max(sizes.items(), key=lambda entry: entry[1]), faults


def room(module: str) -> tuple[str, str]:
    """The source folder and the room of a module; both empty for the public API."""
    parts = module.split(".")[1:]
    return (parts[0], parts[1] if len(parts) > 1 else "") if parts and parts[0] in FLOORS else ("", "")


def arrows(tree: Tree) -> dict[tuple[str, str], set[tuple[str, str]]]:
    """Rooms that each room imports from, in every source folder."""
    found: dict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
    for module, targets in tree.imports.items():
        found[room(module)].update(room(target) for target in targets if target.startswith(f"{PACKAGE}."))
    return {
        start: {end for end in ends if end != start and end[1]} for start, ends in found.items() if start[1]
    }


def upward(tree: Tree) -> list[str]:
    """Arrows that do not point downwards, and rooms that stand on no floor."""
    return [fault for start, ends in sorted(arrows(tree).items()) for fault in _upward(start, ends)]


def _upward(start: tuple[str, str], ends: set[tuple[str, str]]) -> Iterator[str]:
    floor = _floor(FLOORS[start[0]], start[1])
    if floor is None:
        yield f"{'/'.join(start)}: on no floor, give it one in tools/structure.py"
        return
    for end in sorted(ends):
        if start[0] == end[0]:
            above = _floor(FLOORS[end[0]], end[1])
            rises = above is not None and above >= floor
        else:
            rises = (_floor(FOLDER_FLOORS, end[0]) or 0) >= (_floor(FOLDER_FLOORS, start[0]) or 0)
        if rises:
            yield f"{'/'.join(start)} -> {'/'.join(end)}"


def _floor(floors: Sequence[str], name: str) -> int | None:
    return next((number for number, names in enumerate(floors) if name in names.split()), None)


def circles(tree: Tree) -> list[str]:
    """A circle of modules that import one another, if there is one."""
    known = {name: targets & tree.files.keys() - {name} for name, targets in tree.imports.items()}
    try:
        TopologicalSorter(known).prepare()
    except CycleError as error:
        return [" -> ".join(reversed(error.args[1]))]
    return []


def broken(tree: Tree) -> dict[str, str]:
    """Contracts that do not hold, each with the chain of imports that breaks it."""
    chains = {
        contract.text: tree.chain(full_names(contract.sources), full_names(contract.targets))
        for contract in CONTRACTS
    }
    return {text: " -> ".join(chain) for text, chain in chains.items() if chain}


def report(root: Path) -> tuple[list[str], list[str]]:
    """Lines to print for a repository, and its faults.

    Args:
        root: folder of the repository.
    """
    tree = read_tree(root)
    (folder, files), faults = crowded(root)
    lines = [f"largest folder: {folder}, {files} Python files (at most {MOST_FILES})", ""]
    between = arrows(tree)
    lines.append(f"{'source folder':14} rooms  arrows between rooms  floors")
    for name, floors in FLOORS.items():
        inner = [
            (start, end) for start, ends in between.items() for end in ends if start[0] == end[0] == name
        ]
        rooms = sum(start[0] == name for start in between)
        lines.append(f"{name:14} {rooms:5}  {len(inner):20}  {len(floors):6}")
    rising, cycles, breaches = upward(tree), circles(tree), broken(tree)
    lines += ["", f"upward arrows: {len(rising)}", f"circles: {len(cycles)}", ""]
    for contract in CONTRACTS:
        state = "broken: " + breaches[contract.text] if contract.text in breaches else "holds"
        lines.append(f"{contract.text}: {state}")
    counted = count([path for name, path in sorted(tree.files.items())], root)
    lines += ["", *_documentation(counted)]
    faults += [f"upward: {arrow}" for arrow in rising] + [f"circle: {circle}" for circle in cycles]
    faults += [f"{text}: {chain}" for text, chain in breaches.items()]
    faults += [f"docstring of three words or fewer: {place}" for place in counted.short]
    return lines, faults


def _documentation(counted: Docstrings) -> list[str]:
    share = counted.documented / counted.functions if counted.functions else 1.0
    return [
        f"public functions of two or more parameters that explain them: "
        f"{counted.documented} of {counted.functions}, {share:.0%}",
        f"docstrings of three words or fewer: {len(counted.short)}",
    ]


def main() -> int:
    """Print the report of a repository; the exit code is 1 when something does not hold."""
    parser = argparse.ArgumentParser(prog="python -m tools.structure", description=main.__doc__)
    parser.add_argument("root", nargs="?", default=Path(), type=Path, help="folder of the repository")
    try:
        lines, faults = report(parser.parse_args().root)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(lines))
    if faults:
        print("\n" + "\n".join(faults), file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

"""Write a method of your own and compare it with the base model: `python examples/own_method.py`."""

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import fedperfit


class Recent(fedperfit.Method):
    """The most frequent of a person's latest answers, whatever is asked."""

    name = "recent"
    title = "most frequent of the latest answers"
    space = {"latest": (4, 8, 16)}  # noqa: RUF012 - the base class says that it is a class variable

    def fit(self, history: fedperfit.History) -> str:
        """Count the latest answers; nothing is trained."""
        latest = [str(item[self.context.task.answer]) for item in history.items[-self.values["latest"] :]]
        return Counter(latest).most_common(1)[0][0] if latest else ""

    def answer(self, fitted: str, questions: Sequence[str]) -> list[str]:
        """Give that answer to every question."""
        return [fitted] * len(questions)


def main() -> None:
    """Compare on a few users of the synthetic world; leave `sizes` and `curves` out for all of them.

    Arguments go to `fedperfit compare`, e.g. `--run-dir runs/recent`.
    """
    sizes = ["--users", "2", "--others", "4", "--seeds", "0", "--draws", "2"]
    curves = ["--history-lengths", "none", "--collective-sizes", "none"]
    command = [str(Path(sys.executable).with_name("fedperfit")), "compare", "--method-file", __file__]
    sys.exit(subprocess.call([*command, "--methods", "recent,base", *sizes, *curves, *sys.argv[1:]]))


if __name__ == "__main__":
    main()

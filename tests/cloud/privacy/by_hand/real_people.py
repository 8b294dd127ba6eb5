"""What a promise of differential privacy costs real people: the 98 of a LaMP folder, on a real model.

All people of the folder train, those who are asked included, who keep their questions held out. Trains
without a promise and under each, and compares the loss on the questions with the base model's, paired over
people. Runs that are in the folder already are taken as they are.

    python -m tests.cloud.privacy.by_hand.real_people FOLDER --data LAMP_2N --epsilons 8 4 2
"""

import argparse
from pathlib import Path

from tests.cloud.privacy.by_hand.utility import NO_STUDIES, ROUNDS, People, losses_of, promise, tell, train

from fedperfit.edge.agent.history import History
from fedperfit.protocol.system.files import read_json, write_json
from fedperfit.protocol.tasks import PromptForm, task_by_name
from fedperfit.simulation.data.lamp import open_lamp

OTHERS, TARGETS = "user_others.json", "user_top_100_history.json"
LABELS = "user_top_100_history_label.json"


def everybody(data: Path, to: Path) -> int:
    """Write a LaMP folder of OPPU's layout in which those who are asked are others too; returns how many.

    Args:
        data: Folder of OPPU's layout.
        to: Folder to write.
    """
    others, targets = read_json(data / OTHERS), read_json(data / TARGETS)
    twice = [{**user, "user_id": f"too-{user['user_id']}", "query": []} for user in targets]
    to.mkdir(parents=True, exist_ok=True)
    write_json(to / OTHERS, [*others, *twice])
    write_json(to / TARGETS, targets)
    write_json(to / LABELS, read_json(data / LABELS))
    return len(others) + len(twice)


def questions(run: Path, data: Path) -> People:
    """Take the held-out questions of those who are asked."""
    task = task_by_name("LaMP_2N")
    lamp = open_lamp(data, task)
    users = [lamp.user("targets", name) for name in lamp.users("targets")]
    histories = [History(user.name, task, user.history, questions=user.questions) for user in users]
    return People(run, task, [history.asked(PromptForm.CHAT) for history in histories])


def main() -> None:
    """Run or resume, and print the share that each promise keeps."""
    parser = argparse.ArgumentParser(description="What a promise costs real people.")
    parser.add_argument("folder", type=Path, help="folder for the runs")
    parser.add_argument("--data", type=Path, required=True, help="LaMP_2N in OPPU's layout")
    parser.add_argument("--epsilons", type=float, nargs="+", default=[8.0])
    parser.add_argument("--delta", type=float, default=1e-3)
    parser.add_argument("--basis", nargs="+", default=["update-basis=random"], help="settings of the basis")
    given = parser.parse_args()
    data = given.folder / "data" / "LaMP_2N"
    people = everybody(given.data, data)
    sizes = (f"others={people}", f"clients-per-round={people}")
    settings = (*ROUNDS, *NO_STUDIES, *sizes, *given.basis)
    options = ("--preset", "small_instruct", "--data", str(data))
    plain = train(given.folder / "plain", settings, *options)
    asked = questions(plain, data)
    for epsilon in given.epsilons:
        promised = (*settings, *promise(epsilon, given.delta))
        private = train(given.folder / f"epsilon-{epsilon:g}", promised, *options)
        tell(f"{people} people, epsilon {epsilon:g}", losses_of(asked, plain, private))


if __name__ == "__main__":
    main()

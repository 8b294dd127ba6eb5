"""Fit a personal shift on a list of items, and see what it changes: `python examples/personal_shift.py`."""

from people import fan

import fedperfit


def main() -> None:
    """Print how many of a person's tags the base model finds, without and with their shift."""
    person = fan("ada", "romance", "fantasy", "action", "sci-fi", "comedy")
    held_out, person.items[:] = person.items[-10:], person.items[:-10]
    base = fedperfit.load("embedded")
    shape = fedperfit.ShiftShape(
        hidden_size=base.card.hidden_size, layers=(3, 4), rank=4, positions=fedperfit.Positions.parse("l7")
    )
    personal, fitted = fedperfit.fit_personal_shift(base, person, shape)
    print(f"fitted on {fitted.items} items, loss {fitted.loss:.3f} nats per token")
    questions = [person.task.instruction + item["description"] for item in held_out]
    for name, shifts in (("base model", []), ("with the personal shift", [personal])):
        answers = fedperfit.answer_questions(base, person.task, questions, shifts)
        right = sum(answer == item["tag"] for answer, item in zip(answers, held_out, strict=True))
        print(f"{name}: {right} of {len(held_out)} right")


if __name__ == "__main__":
    main()

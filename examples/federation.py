"""Train a collective shift over several people in one process: `python examples/federation.py`."""

from people import fan

import fedperfit

TASTES = {
    "ben": ("fantasy", "romance", "action", "comedy", "sci-fi"),
    "carl": ("fantasy", "action", "sci-fi", "romance", "comedy"),
    "dora": ("romance", "fantasy", "comedy", "action", "sci-fi"),
    "emma": ("fantasy", "comedy", "romance", "sci-fi", "action"),
}


def main() -> None:
    """Print what each round of a federation did, and the bytes that it cost."""
    histories = [fan(name, *taste) for name, taste in TASTES.items()]
    result = fedperfit.run_federation(histories, settings={"rounds": 3})
    for report in result.rounds:
        # None where no client shares its metrics; these do, by `shares_metrics` of their histories.
        loss = "not shared" if report.loss is None else f"{report.loss:.3f}"
        print(
            f"round {report.round}: {len(report.admitted)} of {len(report.asked)} clients, "
            f"{report.items} items, loss {loss}, {report.bytes_down} bytes down, {report.bytes_up} bytes up"
        )
    shape = result.header.shape
    print(f"collective shift of rank {shape.rank} at layers {shape.layers}, trained on {result.header.task}")


if __name__ == "__main__":
    main()

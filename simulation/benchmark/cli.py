"""Command `fedperfit benchmark`: our engine beside what users would pick instead, in one run."""

import platform
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from fedperfit.protocol.system.commands import going_on, stoppable
from fedperfit.protocol.system.errors import InputError
from fedperfit.simulation.study_folder import check_finished

PARTS = ("training", "decoding", "scaling", "orthonormal", "agent", "secure-sums", "rounds", "equal-score")
"""Parts of the benchmark, in the order in which they run; the last one needs a finished run."""
_DECODED = "LaMP_4"
"""Task whose prompt length the decoding part takes."""


@stoppable
def benchmark(
    tasks: Annotated[
        str, typer.Option(help="LaMP tasks, separated by commas, whose prompt lengths are trained on.")
    ] = ("LaMP_2N,LaMP_2M,LaMP_3,LaMP_4,LaMP_5,LaMP_7"),
    positions: Annotated[
        str, typer.Option(help="Shifted positions, separated by commas; each makes a row.")
    ] = "l7,f7+l7",
    contenders: Annotated[
        str,
        typer.Option(
            help="engine, plain (ours without caches), pyreft, lora (PEFT, r=8), lora-checkpointing."
        ),
    ] = "engine,plain,pyreft,lora,lora-checkpointing",
    parts: Annotated[str, typer.Option(help=f"Any of {', '.join(PARTS)}.")] = ",".join(PARTS[:-1]),
    users: Annotated[int, typer.Option(help="Users the engine trains side by side.")] = 8,
    others: Annotated[int, typer.Option(help="Users the others train, one after another.")] = 1,
    items: Annotated[int, typer.Option(help="History items of each user.")] = 16,
    epochs: Annotated[
        int,
        typer.Option(
            help="Passes over the items; 0 takes those of each task's preset, which are the paper's."
        ),
    ] = 0,
    base_model: Annotated[
        str, typer.Option(help="Folder or hub name; by default a Llama with random weights of these sizes.")
    ] = "",
    layers: Annotated[int, typer.Option(help="Decoder layers of the random model.")] = 12,
    hidden_size: Annotated[int, typer.Option(help="Hidden size of the random model.")] = 512,
    heads: Annotated[int, typer.Option(help="Attention heads of the random model.")] = 8,
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda, …")] = "auto",
    dtype: Annotated[
        str, typer.Option(help="Type of the weights; auto is bf16 on CUDA, fp32 on a CPU.")
    ] = "auto",
    scaling_users: Annotated[str, typer.Option(help="Numbers of users in the scaling part.")] = (
        "10,100,1000,10000"
    ),
    threads: Annotated[int, typer.Option(help="CPU threads of every contender.")] = 2,
    repeats: Annotated[
        int, typer.Option(help="Measurements of each training, of which the fastest counts.")
    ] = 1,
    run_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a finished run with people-prior=true, for the part equal-score: passes and "
            "seconds until its new people are answered as well as by PerFit."
        ),
    ] = None,
    people: Annotated[int, typer.Option(help="New people of that run who are fitted, at most.")] = 48,
    note: Annotated[
        str, typer.Option(help="Text kept beside the figures, such as other load on the machine.")
    ] = "",
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Two such JSON files whose figures are compared; nothing is measured."),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            dir_okay=False, help="JSON file of the measurements; an interrupted run continues from it."
        ),
    ] = Path("benchmark.json"),
) -> None:
    """Measure training, decoding and scaling against pyreft and PEFT LoRA, and print the tables.

    Every contender gets the same model, items, batches, epochs and seed, in a process of its own. Beside
    each speed-up stands the bound that counting layers times tokens allows for it. About half an hour on
    2 idle cores; other load on the machine distorts the figures. `--tasks LaMP_2M --parts training` takes
    two minutes. pyreft and peft are optional: a row says how to install what is missing.
    """
    if compare is not None:
        from fedperfit.simulation.benchmark import comparison

        Console().print(comparison.compare(*compare))
        return
    numbers = {"users": users, "others": others, "items": items, "threads": threads, "repeats": repeats}
    for name, value in numbers.items():
        if value < 1:
            raise InputError(f"{name}={value}: must be at least 1")
    chosen = _choice("parts", parts, PARTS)
    if "equal-score" in chosen:
        if run_dir is None:
            raise InputError("parts: equal-score needs --run-dir, a finished run with people-prior=true")
        check_finished(run_dir)

    from fedperfit.simulation.benchmark.contenders import CONTENDERS
    from fedperfit.simulation.benchmark.model import ModelSpec, make_base
    from fedperfit.simulation.benchmark.workload import LENGTHS

    model = ModelSpec(
        name=base_model,
        layers=layers,
        hidden_size=hidden_size,
        heads=heads,
        device=device,
        dtype=dtype,
    )
    trained_tasks = _choice("tasks", tasks, LENGTHS)
    contending = _choice("contenders", contenders, CONTENDERS)
    sizes = [_number("scaling-users", text) for text in scaling_users.split(",")]

    from fedperfit.simulation.benchmark.origin import origin
    from fedperfit.simulation.benchmark.parts import (
        agent,
        decoding,
        equal_score,
        orthonormal,
        rounds,
        scaling,
        secure_sums,
        training,
    )
    from fedperfit.simulation.benchmark.record import Record

    plan = training.TrainingPlan(
        model=model,
        card=make_base(model).card,
        tasks=trained_tasks,
        positions=[part.strip() for part in positions.split(",")],
        contenders=contending,
        users=users,
        others=others,
        items=items,
        epochs=epochs,
        threads=threads,
        repeats=repeats,
    )
    counts = {
        "training": plan.count,
        "decoding": 1,
        "scaling": scaling.REPEATS * len(sizes),
        "orthonormal": 2,
        "agent": 1,
        "secure-sums": len(secure_sums.CLIENTS) * len(secure_sums.ENCODINGS),
        "rounds": len(rounds.CELLS),
        "equal-score": equal_score.MOST,
    }
    total = sum(counts[part] for part in chosen)
    console = Console()

    def on_done(name: str, figures: str) -> None:
        done = len(record.measurements)
        console.print(f"[dim]{done:4d}/{total}[/dim]  {name}  {figures}", highlight=False, soft_wrap=True)

    settings = {
        "model": vars(model),
        "training": [tasks, positions, contenders, users, others, items, epochs, repeats],
        "parts": list(chosen),
        "scaling_users": sizes,
        "threads": threads,
        "machine": _machine(),
    }
    if run_dir is not None:
        settings["people"] = [str(run_dir.resolve()), people]
    record = Record(out, settings, on_done, origin(note))
    tables = []
    with going_on(console, "fedperfit", *sys.argv[1:]):
        if "training" in chosen:
            trained = training.run(plan, record)
            record.put("training", trained)
            tables.append(training.table(trained))
        if "decoding" in chosen:
            decoded = decoding.run(model, _DECODED, threads, record)
            record.put("decoding", decoded)
            tables.append(decoding.table(decoded))
        if "scaling" in chosen:
            scaled = scaling.run(sizes, threads, record)
            record.put("scaling", scaled)
            tables.append(scaling.table(scaled))
        if "orthonormal" in chosen:
            steps = orthonormal.run(threads, record)
            record.put("orthonormal", steps)
            tables.append(orthonormal.table(steps))
        if "agent" in chosen:
            stayed = agent.run(base_model, record)
            record.put("agent", stayed)
            tables.append(agent.table(stayed))
        if "secure-sums" in chosen:
            summed = secure_sums.run(record)
            record.put("secure-sums", summed)
            tables.append(secure_sums.table(summed))
        if "rounds" in chosen:
            taken = rounds.run(record)
            record.put("rounds", taken)
            tables.append(rounds.table(taken))
        if "equal-score" in chosen and run_dir is not None:
            equal = equal_score.run(run_dir, people, threads, record)
            record.put("equal-score", equal)
            tables.append(equal_score.table(equal))
    for table in tables:
        console.print(table)
    console.print(f"measurements: {out}", soft_wrap=True, markup=False)


def _choice(option: str, text: str, known: Any) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise InputError(f"{option}: unknown {name!r}, expected some of {', '.join(known)}")
    return names


def _number(option: str, text: str) -> int:
    if not text.strip().isdigit() or int(text) < 1:
        raise InputError(f"{option}: {text!r} is not a number of users")
    return int(text)


def _machine() -> dict[str, str]:
    """Describe what the figures depend on beside the settings."""
    import torch
    import transformers

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {"device": device, "torch": torch.__version__, "transformers": transformers.__version__}

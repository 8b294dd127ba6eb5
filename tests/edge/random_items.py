"""Training items of random tokens."""

import random

from fedperfit.edge.engine.examples import Example


def examples_of(count: int, seed: int = 0, *, prefix: int = 0, shortest: int = 2) -> list[Example]:
    """Prompts of 1 + `shortest` to 21 tokens, `prefix` shared ones among them extra; targets of 2 to 6."""
    rng = random.Random(seed)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.randrange(3, 500) for _ in range(rng.randint(low, high)))

    shared = tuple(range(10, 10 + prefix))
    return [Example((1, *shared, *tokens(shortest, 20)), (*tokens(1, 5), 2)) for _ in range(count)]

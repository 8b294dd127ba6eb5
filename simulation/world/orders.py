"""The orders in which a person may like tags, with the probability of each; exact by enumeration.

Likings are independent and normal with one spread and a mean for each tag. Which tag is liked best among some
depends on the order alone, so that all of the posterior is a weight for each order.
"""

from functools import lru_cache
from itertools import combinations, permutations

import numpy as np
from numpy.typing import NDArray

_GRID = 65
_REACH = 5.0
"""Spreads beyond the outermost means at which likings are cut off."""
Array = NDArray[np.float64]


@lru_cache(maxsize=4)
def orders(tags: int) -> NDArray[np.int8]:
    """Return every order of so many tags, the least liked first: (orders, tags)."""
    return np.array(list(permutations(range(tags))), dtype=np.int8)


@lru_cache(maxsize=4)
def favourites(tags: int, cued: int) -> dict[tuple[int, ...], NDArray[np.int8]]:
    """Return the tag that each order likes best among some.

    Args:
        tags: Number of tags that are ordered.
        cued: Number of tags to choose among.

    Returns:
        By the ascending tags to choose among: (orders,) the best of them.
    """
    places = np.argsort(orders(tags), axis=1)
    return {
        among: np.array(among, dtype=np.int8)[places[:, among].argmax(axis=1)]
        for among in combinations(range(tags), cued)
    }


@lru_cache(maxsize=8)
def order_probabilities(means: tuple[float, ...], spread: float) -> Array:
    """Integrate the probability of every order of independent normal likings.

    With f_i the density of the i-th of an order, the least liked first, the probability is the last of
    g_1(x) = int^x f_1, g_i(x) = int^x f_i g_(i-1), at infinity; orders that begin alike share integrals.

    Args:
        means: Mean liking of each tag.
        spread: Standard deviation of each liking.

    Returns:
        (orders,) in the order of `orders`, with sum 1.
    """
    middle = np.array(means)
    grid = np.linspace(middle.min() - _REACH * spread, middle.max() + _REACH * spread, _GRID)
    density = np.exp(-0.5 * ((grid - middle[:, None]) / spread) ** 2).astype(np.float32)
    values = np.ones((1, _GRID), dtype=np.float32)
    for depth in range(1, len(means) + 1):
        beginnings = _beginnings(len(means), depth)
        width = len(means) - depth + 1  # orders that go on from each beginning that is one shorter
        values = np.repeat(values, width, axis=0) * density[beginnings]
        values = np.cumsum(values, axis=1) - 0.5 * values
    weights = values[:, -1].astype(np.float64)
    return np.asarray(weights / weights.sum())


@lru_cache(maxsize=64)
def _beginnings(tags: int, depth: int) -> NDArray[np.int8]:
    """Return the last tag of every distinct beginning of so many tags, in the order of `orders`."""
    return np.array([beginning[-1] for beginning in permutations(range(tags), depth)], dtype=np.int8)

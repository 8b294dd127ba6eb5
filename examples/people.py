"""Film fans whose tags follow their own taste: the histories that the examples share.

The words are some that the embedded model knows, so that it can read the films; a larger model reads any.
"""

import random

import fedperfit

CUES = {
    "sci-fi": ("starship", "android", "galaxy", "hologram", "rocket"),
    "comedy": ("pranks", "slapstick", "laughter", "banter", "sitcom"),
    "romance": ("wedding", "kiss", "bride", "honeymoon", "bouquet"),
    "action": ("chase", "heist", "ambush", "helicopter", "gunfight"),
    "fantasy": ("dragon", "wizard", "kingdom", "unicorn", "prophecy"),
}
FILMS = 40


def fan(name: str, *taste: str) -> fedperfit.History:
    """Make the history of one person: films of three kinds each, tagged by the kind the person likes best.

    Args:
        name: Name of the person, from which the films they saw follow.
        taste: The tags of `CUES`, from the one liked best to the one liked least.
    """
    rng = random.Random(name)
    items = []
    for number in range(FILMS):
        kinds = rng.sample(taste, 3)
        words = [word for kind in kinds for word in rng.sample(CUES[kind], 2)]
        rng.shuffle(words)
        description = (
            "In Eastdale, a proud translator meets Ines. There are {} and {} before the winter ends. "
            "Soon {} and {} change the clinic. It is full of {}, with {} too."
        ).format(*words)
        items.append({"id": str(number), "description": description, "tag": min(kinds, key=taste.index)})
    return fedperfit.History(
        name=name, task=fedperfit.task_by_name("LaMP_2M"), items=items, shares_metrics=True
    )

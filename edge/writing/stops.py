"""Ends a text at the first of some stop texts, which are no part of it."""

from collections.abc import Callable, Sequence

from fedperfit.edge.writing.scores import TokenScore


class Stops:
    """Passes text on as far as no stop text is in it, also where one spans pieces; and its tokens' scores."""

    def __init__(self, stops: Sequence[str], on_part: Callable[[str | Sequence[TokenScore]], None]) -> None:
        """Wait for text.

        Args:
            stops: texts that end it, at least one, none of them empty.
            on_part: called with each piece of text, and before it with the scores of its tokens.
        """
        self.found = False
        """Whether a stop text came; nothing is passed on after it."""
        self._stops, self._on_part = stops, on_part
        self._longest = max(map(len, stops))
        self._held = ""
        self._scores: list[TokenScore] = []
        self._unscored = 0
        """Characters that were passed on, less those of the tokens whose scores were."""

    def __call__(self, part: str | Sequence[TokenScore]) -> None:
        """Take the next piece of text, or the scores of the tokens of the one that follows."""
        if self.found:
            return
        if not isinstance(part, str):
            self._scores.extend(part)
            return
        self._held += part
        ends = [self._held.index(stop) for stop in self._stops if stop in self._held]
        self.found = bool(ends)
        self._pass_on(min(ends, default=max(len(self._held) - self._longest + 1, 0)))

    def close(self) -> None:
        """Pass on what is left at the end of a text in which no stop text came."""
        if self.found:
            return
        if self._scores:
            self._on_part(self._scores)
        if self._held:
            self._on_part(self._held)

    def _pass_on(self, length: int) -> None:
        text, self._held = self._held[:length], self._held[length:]
        self._unscored += length
        told = []
        while self._scores and self._unscored > 0:
            told.append(self._scores.pop(0))
            self._unscored -= len(told[-1].text)
        if told:
            self._on_part(told)
        if text:
            self._on_part(text)

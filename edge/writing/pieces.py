"""Tokens as text, piece by piece as they come: joined, the pieces are what all tokens make together."""

from collections.abc import Callable

_PART = "\ufffd"
"""What stands for bytes that are not a whole character yet."""
_HELD = 8
"""Characters at the end that wait, as tokens that follow may take blanks among them away."""
_WINDOW = 64
"""Tokens that are enough to tell what those after them make of it all."""


class Pieces:
    """The text of tokens that come one by one.

    A token is not always the same text: a tokenizer may leave out the blank before a text's first word, take
    blanks before a comma away, or need several tokens for one character. So each is decoded with those before
    it, and the last characters wait for what follows.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        """Wait for tokens; decode: turns token ids into text."""
        self._decode = decode
        self._tokens: list[int] = []
        self._told = 0
        """Number of characters of the tokens' text that were returned."""

    def add(self, token: int) -> str:
        """Take the next token; return what no later one changes of the text that was not returned yet."""
        self._tokens.append(token)
        text = self._decode(self._tokens)
        whole = text.rstrip(_PART)
        end = max(len(whole) - _HELD, self._told)
        piece, self._told = text[self._told : end], end
        if len(self._tokens) > 2 * _WINDOW:
            self._shorten(text[end:])
        return piece

    def rest(self) -> str:
        """Return what is left of the text when no more tokens come."""
        return self._decode(self._tokens)[self._told :]

    def _shorten(self, left: str) -> None:
        """Forget the first tokens, where the others make the same of what is left."""
        latest = self._tokens[-_WINDOW:]
        text = self._decode(latest)
        if left and text.endswith(left) and len(text) > len(left) + _HELD:
            self._tokens, self._told = latest, len(text) - len(left)

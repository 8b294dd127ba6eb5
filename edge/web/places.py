"""Where in a text each of its tokens begins, told as the text comes."""

from collections.abc import Sequence

PART = "\ufffd"
"""What stands for a token that is only a part of a character."""


class Places:
    """Finds tokens in a text, one after the other.

    A token whose text is not there takes no room, as a start token before a prompt and parts of a character
    do. While a text goes on, a token waits until the text is long enough to hold it.
    """

    def __init__(self) -> None:
        """Begin with a text's first token."""
        self._place = 0
        """Where the next token begins."""
        self._parts = 0
        """Tokens before it that are parts of characters, by as many of which it may begin later."""

    def of(self, tokens: Sequence[str], text: str, *, ended: bool) -> list[int]:
        """Return where the next tokens begin, as many of them as can be told.

        Args:
            tokens: Tokens after those that were told.
            text: The text from its beginning, as far as it came.
            ended: Whether no more of it comes.
        """
        told: list[int] = []
        for token in tokens:
            if not ended and PART not in token and len(text) < self._place + self._parts + len(token):
                break
            told.append(self._next(token, text))
        return told

    def _next(self, token: str, text: str) -> int:
        if PART in token:
            self._parts += 1
            return self._place
        for piece in (token, token.lstrip()):  # the first of a text may have lost its blank
            begin = text.find(piece, self._place, self._place + self._parts + len(piece))
            if begin < 0 and piece.startswith(text[self._place :]):
                begin = self._place
            if begin >= 0:
                self._place, self._parts = begin + len(piece), 0
                return begin
        return self._place

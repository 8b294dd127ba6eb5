"""How a personal shift follows releases and lessons: fitted anew, carried over, taught, and made to forget an item."""

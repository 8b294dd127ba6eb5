"""How a personal shift follows releases and lessons: fitted anew, carried over, taught, made to forget."""

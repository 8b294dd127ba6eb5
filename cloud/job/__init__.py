"""The phases of a run, from choosing layers to evaluating the release."""

"""CHAMELEON (Zhang et al., 2025): personalization by editing along directions found without training."""

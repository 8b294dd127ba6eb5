"""Presets of runs, one TOML file each."""

"""Trackers: TensorBoard, Weights & Biases, MLflow and Trackio as sinks of a run's events."""

"""Telling TensorBoard, Weights & Biases and MLflow how a run goes."""

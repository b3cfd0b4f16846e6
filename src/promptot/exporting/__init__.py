"""Exports: a run for onnxruntime, TorchScript, open_clip or transformers."""

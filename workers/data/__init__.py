"""Rows by index: sources, their caches, the order of samples, and batches. NumPy only; no TensorFlow in this room."""

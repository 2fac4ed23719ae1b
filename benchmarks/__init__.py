"""Gradwire side by side with its peers: one command, one table. See README.md. No TensorFlow outside `peers`."""

"""From a Keras model in the caller's process to a job and back. Uses the caller's Keras, and imports none itself."""

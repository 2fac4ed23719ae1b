"""The compute: models, data, the gradient program, and the exchange with the trainer."""

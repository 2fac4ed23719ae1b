"""From a specification to Keras's objects: models, losses, metrics and optimizers."""

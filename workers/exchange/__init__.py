"""How weights, gradients and the words about them travel between the trainer and its workers."""

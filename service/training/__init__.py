"""The trainer: one process per running job, which owns its weights and optimiser state."""

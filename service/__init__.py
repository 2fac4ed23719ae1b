"""The coordinator: API, validation, store, queue, supervision, metrics."""

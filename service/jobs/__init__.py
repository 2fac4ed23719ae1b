"""The life of a job: states, queue, supervision."""

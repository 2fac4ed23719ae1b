"""A job as the coordinator knows it: its record, its states, its events."""

"""Job folders: a manifest, an event log, a state and results that survive whatever happens to the process."""

"""Training dictionaries: configuration, the step, checkpoints, several at once, several processes."""

"""What can be read: folds of the log, and nothing that is not in it."""

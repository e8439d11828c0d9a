"""Board verbs of the command line."""

"""One module per part of a board; each `read(reader)` gives a frozen dataclass in which None means: not known."""

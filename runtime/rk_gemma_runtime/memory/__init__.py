"""The memory model: what a model needs of a board's RAM and NPU, and how fast it will be (docs/memory.md)."""

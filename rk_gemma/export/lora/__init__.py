"""LoRA adapters in PEFT's format: read, checked against the base checkpoint, and written into the bundle."""

"""Bundles from what is on the hub (huggingface.co, or what HF_ENDPOINT names)."""

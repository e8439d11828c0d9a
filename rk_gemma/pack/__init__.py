"""A bundle from finished parts: NPU weights, CPU weights and a tokenizer."""

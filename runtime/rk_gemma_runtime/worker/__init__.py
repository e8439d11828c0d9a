"""The child process that owns one engine: `python -m rk_gemma_runtime.worker FD`."""

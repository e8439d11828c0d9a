"""Host side of rk-gemma: a Gemma checkpoint becomes a bundle for RK3588 boards."""

__version__ = "0.1.0"

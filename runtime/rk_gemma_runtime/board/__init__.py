"""What is known of a board: measured on it, or described by a profile."""

from rk_gemma_runtime.board.facts import Board, Hold, Limits, Memory, Npu
from rk_gemma_runtime.board.live import this_board
from rk_gemma_runtime.board.profile import find_profile, profile_names, read_profile

__all__ = ["Board", "Hold", "Limits", "Memory", "Npu", "find_profile", "profile_names", "read_profile", "this_board"]

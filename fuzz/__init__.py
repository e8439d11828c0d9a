"""Coverage-guided fuzzing of what reads strangers' bytes: `python -m fuzz [SECONDS]` (needs the fuzz extra)."""

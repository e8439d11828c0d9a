"""`rk-gemma plan`: what to plan for, and how the answer looks."""

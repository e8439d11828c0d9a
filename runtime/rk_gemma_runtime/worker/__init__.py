"""The child process that owns one engine; started by the supervisor only."""

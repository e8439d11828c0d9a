"""The rknpu driver's own interface, beside librkllmrt: `ioctl` declares, `device` calls, `probe` measures.

All of it runs in a process of its own, started by `ask`: an ioctl that never returns must not take the caller along.
"""

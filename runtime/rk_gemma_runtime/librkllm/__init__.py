"""The binding to librkllmrt.so: `abi` declares, `library` finds and identifies, `session` owns a handle."""

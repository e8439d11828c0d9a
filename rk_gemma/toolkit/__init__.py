"""Rockchip's rkllm-toolkit, kept in an interpreter of its own and driven from here."""

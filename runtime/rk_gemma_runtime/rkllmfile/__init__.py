"""Reads `.rkllm` files without the vendor's library.

No description of the format is public. What is read here follows two independent reports (files of toolkits 1.3.0 and
1.3.1), so each value says where it came from and how sure it is, and nothing else is claimed.
"""

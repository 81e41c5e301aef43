"""Targets cut at the exit layer, their weights on disk, and the adapter."""

"""Targets and adapters, in memory and on disk."""

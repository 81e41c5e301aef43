"""Measuring: prompts, and paired runs on them in one process."""

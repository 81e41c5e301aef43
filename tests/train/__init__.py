"""Adapter training."""

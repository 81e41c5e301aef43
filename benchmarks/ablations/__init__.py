"""Adapters of other shapes, trained by the trainer and judged as it judges."""

"""Decoding: what a sequence owns, the loop, and what calls ask of it."""

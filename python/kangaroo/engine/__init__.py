"""Decoding: what a sequence owns, the loop, and text in, text out."""

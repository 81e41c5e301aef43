"""Drafting: the tree of guessed tokens, and the drafters that grow it."""

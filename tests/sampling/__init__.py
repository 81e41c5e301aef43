"""Tests of the law of sampled output."""

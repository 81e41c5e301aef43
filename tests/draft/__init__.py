"""Tests of the draft tree and of the drafter."""

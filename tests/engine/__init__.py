"""Tests of the decode loop and of what a sequence owns."""

"""Tests of the benchmarks: that peers do the same work, and that a figure says what it is."""

"""Tests of the ops: every implementation against independent maths, and against the laws."""

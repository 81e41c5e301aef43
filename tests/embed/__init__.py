"""Tests of programs that embed libkangaroo."""

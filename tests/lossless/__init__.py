"""Tests of the promise: speculation changes nothing but the time."""

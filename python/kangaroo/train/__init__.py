"""Adapter training: data, differentiable forward, loss, loop, choice of the stopping rule."""

"""The law of sampled output: random numbers, accept rules, and the processors that shape a row."""

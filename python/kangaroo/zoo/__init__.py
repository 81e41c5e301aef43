"""tiny-py, the embedded model: its corpus, tokenizer, weights and adapters; how it is widened."""

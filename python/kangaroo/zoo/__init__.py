"""tiny-py, the embedded model: how its corpus, tokenizer, weights and adapters are made."""

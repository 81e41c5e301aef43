"""A drafter that is wrong is only slow: that cached adapters are right is tested here."""

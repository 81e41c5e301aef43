"""The embedded model, and small models as large ones."""

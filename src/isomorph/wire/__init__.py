"""Bytes <-> plain records. Knows nothing of models and imports nothing from the floors above, only `errors`."""

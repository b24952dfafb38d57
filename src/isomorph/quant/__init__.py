"""Quantisation: the block types of ggml, decoded and encoded with the bits of the reference."""

"""Loads PyTorch programs and weights. Imports none of the other formats."""

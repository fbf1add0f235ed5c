"""Measures before training which defects remain visible to the autoencoder at the input size."""

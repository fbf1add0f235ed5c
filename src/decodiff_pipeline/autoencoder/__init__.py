"""Fitting an autoencoder, the images it is fitted to, and what it keeps of an image."""

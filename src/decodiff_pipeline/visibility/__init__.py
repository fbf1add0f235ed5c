"""What the configured size and autoencoder leave of an image, measured before any training."""

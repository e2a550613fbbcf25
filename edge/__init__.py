"""The server: frame buffer, labels, fine-tuning, update service."""

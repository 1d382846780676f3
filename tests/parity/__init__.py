"""Perdure beside the real restate-server: the same requests to both, and every difference with its reason."""

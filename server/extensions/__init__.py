"""Code from outside that the coordinator runs itself."""

"""The commands of simulations, one a file."""

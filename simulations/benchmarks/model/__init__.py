"""How good is the model itself, without privacy? The tables of docs/results.md."""

"""The benchmark of the model itself, without privacy; it writes the tables of the results page."""

"""A source of records that a hospital has written itself."""

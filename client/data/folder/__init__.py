"""A folder of records: its labels.csv, or its class folders."""

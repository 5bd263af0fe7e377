"""Masks that hide a site's answer from everybody who does not see the sum over its whole cohort.

`identity`: the guard's long-lived key, which people compare; `agreement`: keys of one run, and a
secret with each other site; `masks`: the words that a round adds.
"""

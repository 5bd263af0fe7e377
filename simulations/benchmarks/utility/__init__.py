"""The benchmark of utility under DP: data set x setting x recipe x epsilon x seed.

recipe.py describes a training, settings.py the sites that share a data set; federate.py trains,
trials.py measures one combination and keeps the result.
"""

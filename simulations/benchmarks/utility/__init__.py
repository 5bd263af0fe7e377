"""How well models learn under DP: data set x setting x recipe x epsilon x seed.

recipe.py says how a model is trained, settings.py who trains it together with whom, federate.py
trains, trials.py measures one combination and keeps what it found.
"""

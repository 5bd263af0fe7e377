"""Recipes: the phases of a run that lists none, made for the situation that its sites are in.

`declared.py` holds what each site has told everyone, and `situation.py` derives the situation from
it. Each situation has a file with one function, which returns its phases: `labels.py`, `kinds.py`,
`few_labels.py` and `new_scanner.py`. `recipe.py` holds the numbers that they share, `parts.py`
divides the rounds, `choice.py` chooses, and `training.py` is what run.yaml and scenarios inherit.
"""

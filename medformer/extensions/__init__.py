"""Code from outside this project that a run, a site or a split names as `MODULE:NAME`.

`reference`: how such code is named in settings; `code`: how it is found, hashed and imported.
"""

"""T5X's gin files: what they say becomes settings of ours.

`table` has what each of T5X's parameters is here, `run_rules` and `model_rules` what takes several
of them to say, `files` the files that T5X brings itself. `config` finds what has a part in a run as
T5X would build it, `reading` looks each of that up, and `translation` is the whole of it.
"""

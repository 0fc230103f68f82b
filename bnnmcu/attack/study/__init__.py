"""What secret seeds are worth: short ones searched, generators' states solved for.

Nothing here attacks a device in field mode, and none of it makes a claim about
what labels or logits give away of a long seed: see ``docs/STUDY.md``.
"""

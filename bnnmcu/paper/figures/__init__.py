"""The paper's figures 2 to 5, drawn from stored records and from nothing else.

:mod:`bnnmcu.paper.figures.catalogue` names them.  Importing a figure needs no
matplotlib; drawing does (``pip install 'bnnmcu[paper]'``).
"""

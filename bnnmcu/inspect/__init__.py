"""Networks for people to look at: tables and pictures of every stage of a compilation."""

from bnnmcu.inspect.describe import Description, Row, describe
from bnnmcu.inspect.picture import graph_svg

__all__ = ["Description", "Row", "describe", "graph_svg"]

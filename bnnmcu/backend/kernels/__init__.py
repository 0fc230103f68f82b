"""Which kernels can compute which kind of node.

One file a family of nodes.  Every node has a plain kernel: the first of its
``CANDIDATES`` that applies; those for special cases come before the general one,
which always applies.  Besides, ``OFFERS`` has the fast kernels, of which each
gives every variant that could compute a site, with the work it would be; the
plan chooses (:mod:`bnnmcu.backend.choice`).
"""

from __future__ import annotations

from bnnmcu.backend.kernels import (
    classes,
    convs,
    dense,
    drawn,
    first,
    helium,
    pools,
    single,
    small_cores,
    values,
)
from bnnmcu.backend.kernels.base import Candidate, Kernel, Offer, Option, Site
from bnnmcu.backend.kernels.work import plain_option
from bnnmcu.errors import UnsupportedModelError
from bnnmcu.graph import Node

__all__ = ["CANDIDATES", "OFFERS", "options", "plain_option"]

#: Kind of node to its plain kernels, in the order of preference.
CANDIDATES: dict[type[Node], tuple[Candidate, ...]] = {
    **convs.CANDIDATES,
    **values.CANDIDATES,
    **pools.CANDIDATES,
    **dense.CANDIDATES,
}

#: The modules with fast kernels, each with its own OFFERS.
_FAST: tuple[dict[type[Node], tuple[Offer, ...]], ...] = (
    classes.OFFERS,
    single.OFFERS,
    drawn.OFFERS,
    first.OFFERS,
    dense.OFFERS,
    small_cores.OFFERS,
    helium.OFFERS,
)

#: Kind of node to its fast kernels.
OFFERS: dict[type[Node], tuple[Offer, ...]] = {
    kind: tuple(offer for offers in _FAST for offer in offers.get(kind, ())) for kind in CANDIDATES
}


def _plain(site: Site) -> Kernel:
    for candidate in CANDIDATES.get(type(site.node), ()):
        kernel = candidate(site)
        if kernel is not None:
            return kernel
    raise UnsupportedModelError(
        f"there is no kernel for {type(site.node).__name__}", where=site.node.name
    )


def options(site: Site) -> tuple[Option, ...]:
    """Every kernel for a site; the plain one first.

    Raises:
        UnsupportedModelError: no kernel is known for this kind of node.
    """
    plain = plain_option(_plain(site), site.out, site.node, site.sources[0])
    offers = OFFERS.get(type(site.node), ())
    return (plain, *(option for offer in offers for option in offer(site)))

"""From stored answers to figures that cannot flatter a model by accident.

Accuracies are against the true label, images that were wrong when clean count
as wrong, and with D draws for each example three figures stand side by side:

* *mean*: share of right answers over examples and draws;
* *majority*: share of examples whose true label has strictly more draws than
  every other label.  Ties go to the attacker, whatever the labels: breaking
  them by the smallest label would make the figure depend on numbering;
* *worst*: share of examples that are right in all D draws.

An example is an image or, where an attack has targets, an image with one of
them.  Both are told: *per pair*, over examples, and *per image*, where an image
is as right as under the worst of its targets.
"""

from bnnmcu.attack.metrics.case import Accuracies, Case, Distortion, Pair, Rounding, Spread
from bnnmcu.attack.metrics.intervals import Accuracy, cluster_bootstrap, wilson
from bnnmcu.attack.metrics.summary import Summary, summarize

__all__ = [
    "Accuracies",
    "Accuracy",
    "Case",
    "Distortion",
    "Pair",
    "Rounding",
    "Spread",
    "Summary",
    "cluster_bootstrap",
    "summarize",
    "wilson",
]

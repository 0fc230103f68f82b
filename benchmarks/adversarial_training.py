"""What adversarial training costs, and what a short one gives (docs/MODELS.md).

    python benchmarks/adversarial_training.py            # some ten minutes on one core

Cost: core-seconds of one step (batch of 128 random images, K = 64) by those of a
clean step. Gain: networks with K = 16 trained on 4,000 of the bundled digits, and 150
of the others attacked on the integer network; accuracy in %, S by 20 fresh draws.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from bnnmcu.attack.config import FgsmConfig, PgdConfig
from bnnmcu.attack.craft import craft, make_twin
from bnnmcu.compiler import compile_file
from bnnmcu.data import Dataset, load_digits
from bnnmcu.nn.adversarial import AdversarialConfig, adversarial_batch
from bnnmcu.nn.config import PaperConfig
from bnnmcu.nn.paper import build
from bnnmcu.nn.training import TrainingConfig, save_net, train
from bnnmcu.toolchain.native import NativeTwin

TRAINING_IMAGES, ATTACKED, DRAWS = 4000, 150, 20
#: Network, adversary, epochs; the first ten are always clean.
TRAINED = (
    ("B", None, 20), ("B", "fgsm", 20), ("B", "pgd", 15), ("S", None, 20), ("S", "fgsm", 20),
)  # fmt: skip


def costs(kind: str) -> None:
    """Steps of each sort, by a clean one."""
    net = build(PaperConfig(kind, 64), 1)
    net.train()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    generator = torch.Generator().manual_seed(1)
    net.set_generator(generator)
    images, labels = torch.rand(128, 1, 28, 28), torch.randint(0, 10, (128,))

    def step(attack: AdversarialConfig | None) -> None:
        loss = F.cross_entropy(net(images), labels)
        if attack is not None:
            made = adversarial_batch(net, images, attack, generator)
            loss = (loss + F.cross_entropy(net(made), labels)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def seconds(attack: AdversarialConfig | None, count: int) -> float:
        step(attack)
        begun = time.thread_time()
        for _ in range(count):
            step(attack)
        return (time.thread_time() - begun) / count

    clean = seconds(None, 8)
    for name, attack, count in (
        ("FGSM", AdversarialConfig("fgsm"), 4),
        ("PGD, 20 iterations", AdversarialConfig("pgd"), 2),
        ("PGD, 40 iterations", AdversarialConfig("pgd", iterations=40), 1),
    ):
        print(f"{kind}64, {name}: {seconds(attack, count) / clean:.1f} clean steps", flush=True)


def accuracies(graph: Any, data: Dataset) -> list[float]:
    """Clean, FGSM 0.1, 0.2, 0.3, PGD 0.05, 0.1; in percent."""
    native, twin = NativeTwin(graph), make_twin(graph)
    rng = np.random.default_rng(0)
    eot = 10 if graph.stochastic else 1
    attacks = [FgsmConfig(epsilon=epsilon, eot_draws=eot) for epsilon in (0.1, 0.2, 0.3)]
    attacks += [PgdConfig(epsilon=e, steps=20, eot_draws=min(eot, 3)) for e in (0.05, 0.1)]
    shown = [data.images] + [craft(twin, a, data.images, data.labels, 1).images for a in attacks]
    found = []
    for images in shown:
        seeds = rng.integers(0, 2**63, (len(images), DRAWS if graph.stochastic else 1))
        labels = native.run(images, seeds.astype(np.uint64)).argmax(-1)
        found.append(100.0 * float((labels == data.labels[:, np.newaxis]).mean()))
    return found


def main() -> None:
    torch.set_num_threads(1)
    for kind in "BS":
        costs(kind)
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits))
    seen, others = order[:TRAINING_IMAGES], order[TRAINING_IMAGES:]
    training = Dataset("digits, 4,000 of them", digits.images[seen], digits.labels[seen])
    attacked = Dataset("the others", digits.images[others], digits.labels[others])
    for kind, method, epochs in TRAINED:
        network = PaperConfig(kind, 16, ste="clipped", bn_momentum=0.05)
        adversarial = None if method is None else AdversarialConfig(method)
        net = train(network, TrainingConfig(epochs, 3e-3, 64, 1, adversarial=adversarial), training)
        with tempfile.TemporaryDirectory() as folder:
            save_net(Path(folder) / "net.pt", net)
            graph = compile_file(Path(folder) / "net.pt").graph
        row = " ".join(f"{one:5.1f}" for one in accuracies(graph, attacked.stratified(ATTACKED)))
        print(f"{kind}16, {method or 'clean'}, {epochs} epochs: {row}", flush=True)


if __name__ == "__main__":
    main()

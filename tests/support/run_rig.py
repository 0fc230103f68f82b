"""A stored run of little images, with names that try to break a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bnnmcu.store import Example, Store

SIDE, CLASSES, DRAWS, IMAGES = 6, 4, 3, 12
EVIL = '<script>alert("x")</script>\x1b[31m & "quoted"'


def attacks(warned: bool) -> list[dict[str, Any]]:
    """Of the identity: two budgets, two lengths of one attack, and one that asks."""
    eot = 1 if warned else 3
    pgd = [
        {"attack": "pgd", "case": f"pgd-{steps}", "steps": steps, "levels": 25, "epsilon": 0.1}
        for steps in (1, 40)
    ]
    fgsm = [
        {"attack": "fgsm", "case": "fgsm", "levels": levels, "epsilon": levels / 255}
        for levels in (25, 76)
    ]
    return [one | {"eot_draws": eot, "adversary": "eot"} for one in (*fgsm, *pgd)] + [
        {"attack": "square", "case": "square", "levels": 25, "epsilon": 0.1, "eot_draws": 1}
    ]


def make_run(path: Path, *, model: str = EVIL, complete: bool = True) -> Path:
    """A results file in which larger budgets fool more images, the same every time."""
    planned = attacks(warned=False)
    identity = {
        "config": {"attacks": planned, "draws": DRAWS, "seed": 1},
        "model": {"name": model, "stochastic": True, "sha256": "ab" * 32},
        "data": {"name": "toy", "images": IMAGES, "sha256": "cd" * 32},
        "oracle": {"name": "board", "label": "emulated"},
    }
    noise = np.random.default_rng(5)
    clean = noise.integers(0, 256, (IMAGES, SIDE, SIDE, 1)).astype(np.uint8)
    cases = [("clean", 0, 0)] + [
        (one["case"], one["levels"], fooled)
        for one, fooled in zip(planned, (4, 9, 3, 11, 6), strict=True)
    ]
    with Store.open(path, identity, provenance={"command": ["attack", EVIL]}) as store:
        for name, levels, fooled in cases:
            moved = noise.integers(-levels, levels + 1, clean.shape)
            pixels = np.clip(clean.astype(int) + moved, 0, 255).astype(np.uint8)
            examples = [
                Example(
                    name,
                    levels,
                    image,
                    image % CLASSES,
                    pixels[image],
                    levels,
                    float(np.linalg.norm((pixels[image].astype(float) - clean[image]) / 255)),
                    0.0,
                    {"seed": image, "queries": 10 * (image + 1)} if name == "square" else None,
                )
                for image in range(IMAGES)
            ]
            store.add_examples(examples, seconds=0.01)
            for one in store.unanswered(name, levels, (SIDE, SIDE, 1)):
                if not complete and name == "square" and one.image > 5:
                    break
                right = one.image >= fooled
                label = (one.image + (0 if right else 1)) % CLASSES
                logits = np.zeros((DRAWS, CLASSES), np.int64)
                logits[:, label] = 5
                seeds = np.arange(DRAWS, dtype=np.uint64)
                store.add_answer(one.row, seeds, logits, None, False, board="b")
    return path

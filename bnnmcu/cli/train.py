"""``bnnmcu train``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import click
from click.core import ParameterSource

from bnnmcu.cli.options import json_option
from bnnmcu.cli.output import note, print_json, progress_bar
from bnnmcu.errors import MissingDependencyError, UsageError

__all__ = ["command"]

_MODEL = re.compile(r"([ABCS])(\d{1,4})\Z")


@click.command("train")
@click.option("--model", "name", required=True, help="Network and filters, e.g. S64.")
@click.option(
    "--data",
    default="mnist:train",
    show_default=True,
    help="digits, mnist:train, FOLDER:train (MNIST, CIFAR-10), or an .npz file.",
)
@click.option(
    "--dataset",
    type=click.Choice(["mnist", "cifar10"]),
    default="mnist",
    show_default=True,
    help="Input shape of the network.",
)
@click.option(
    "--first-image",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Leave out the images before this one (6000 keeps the bundled digits unseen).",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    default=15,
    show_default=True,
    help="Times that all images are seen.",
)
@click.option("--lr", type=float, default=1e-3, show_default=True, help="Adam's, at the start.")
@click.option(
    "--schedule",
    type=click.Choice(["cosine", "constant"]),
    default="cosine",
    show_default=True,
    help="Of the learning rate: down to zero along a half cosine, or as it is.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=2),
    default=128,
    show_default=True,
    help="Images of a step.",
)
@click.option(
    "--ste",
    type=click.Choice(["identity", "clipped"]),
    default="clipped",
    show_default=True,
    help="Straight-through estimator.",
)
@click.option(
    "--form",
    type=click.Choice(["straight-through", "frozen", "shared-draw"]),
    default="straight-through",
    show_default=True,
    help="Of S: conv3 trained, left as initialised (the published code), or with one draw for "
    "all filters (cannot be exported).",
)
@click.option(
    "--bn-momentum",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.01,
    show_default=True,
    help="Weight of the newest batch in batch norm's statistics; 0.001 in the published code.",
)
@click.option(
    "--statistics",
    type=click.Choice(["running", "recomputed"]),
    default="running",
    show_default=True,
    help="Of batch norm: as they are after the last step, or from training images anew.",
)
@click.option(
    "--label-smoothing",
    type=click.FloatRange(0, 0.5, max_open=True),
    default=0.0,
    show_default=True,
    help="Share of the target that the true class gives to the others.",
)
@click.option(
    "--first-bits",
    type=click.IntRange(8, 14),
    help="Train with the first layer's weights rounded to so many bits, as the export does.",
)
@click.option(
    "--adversarial",
    "method",
    type=click.Choice(["fgsm", "pgd"]),
    help="Train on adversarial examples too, half and half, after some clean epochs.",
)
@click.option(
    "--clean-epochs",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="Epochs before adversarial examples join in.",
)
@click.option(
    "--pgd-eps",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.3,
    show_default=True,
    help="Radius of PGD's ball.",
)
@click.option(
    "--pgd-step",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.01,
    show_default=True,
    help="Step of PGD.",
)
@click.option(
    "--pgd-steps",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Iterations of PGD; the paper has 20 or 40.",
)
@click.option(
    "--fgsm-scale",
    type=click.Choice(["paper", "published"]),
    default="paper",
    show_default=True,
    help="FGSM's epsilons: |N(0, 39/255)|, or not divided by 255, as in the published code.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=1234,
    show_default=True,
    help="Decides everything that is random.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Threads of torch; more than one may change the last bits.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where torch computes; a GPU rounds sums otherwise, from the same random numbers.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="Model file, .pt or .safetensors.",
)
@json_option
def command(
    name: str,
    data: str,
    dataset: str,
    first_image: int,
    epochs: int,
    lr: float,
    schedule: Literal["cosine", "constant"],
    batch_size: int,
    ste: str,
    form: str,
    bn_momentum: float,
    statistics: Literal["running", "recomputed"],
    label_smoothing: float,
    first_bits: int | None,
    method: Literal["fgsm", "pgd"] | None,
    clean_epochs: int,
    pgd_eps: float,
    pgd_step: float,
    pgd_steps: int,
    fgsm_scale: Literal["paper", "published"],
    seed: int,
    threads: int,
    device: str,
    output: Path,
    as_json: bool,
) -> None:
    """Train one of the paper's networks: A, B, C or S, with any number of filters.

    A checkpoint is kept beside the output after each epoch; a run that was
    stopped goes on from it, and ends with the same weights.

    \b
    Example:
      bnnmcu train --model S64 --ste identity --data mnist:train --first-image 6000 -o s64.pt
      bnnmcu train --model B64 --adversarial pgd --data mnist:train -o b64-pgd.pt
    """
    match = _MODEL.match(name)
    if not match:
        raise UsageError(f"{name!r} names no network", where="--model", hint="e.g. --model S64")
    if output.suffix not in (".pt", ".safetensors"):
        raise UsageError(
            f"unknown kind of model file {output.suffix!r}",
            where="--output",
            hint="use .pt or .safetensors",
        )
    try:
        from bnnmcu.attack.device import choose_device
        from bnnmcu.nn.training import error_rate, provenance, save_net, train
    except ImportError as error:
        raise MissingDependencyError(
            "training needs torch", hint="pip install 'bnnmcu[train]'"
        ) from error
    from bnnmcu.data import load_dataset
    from bnnmcu.nn.config import PaperConfig
    from bnnmcu.nn.training_config import AdversarialConfig, EpochReport, TrainingConfig

    if form != "straight-through" and match[1] != "S":
        raise UsageError(
            f"{form!r} is a form of S", where="--form", hint=f"--model S{match[2]}, or leave it out"
        )
    config = PaperConfig(
        match[1], int(match[2]), dataset, ste, bn_momentum, form  # type: ignore[arg-type]
    )  # fmt: skip
    adversarial = None
    if method is not None:
        adversarial = AdversarialConfig(
            method, clean_epochs, fgsm_scale, pgd_eps, pgd_step, pgd_steps
        )
    else:
        _refuse_typed("--adversarial")
    training = TrainingConfig(
        epochs, lr, batch_size, seed, first_image, threads, adversarial, first_bits, schedule,
        label_smoothing, statistics,
    )  # fmt: skip
    place = choose_device(device).type
    if device == "auto":
        note(f"device: {place}")
    images = load_dataset(data)
    checkpoint = output.with_name(f"{output.name}.checkpoint")
    if checkpoint.exists():
        note(f"going on from {checkpoint}")
    with progress_bar() as bar:
        task = bar.add_task(f"{config.name} epoch 1/{epochs}", total=None, info="")

        def show(report: EpochReport) -> None:
            info = f"loss {report.loss:.3f}, error {100 * report.train_error:.2f} %"
            bar.update(
                task,
                description=f"{config.name} epoch {report.epoch}/{report.epochs}",
                completed=report.step,
                total=report.steps,
                info=info,
            )
            if report.step == report.steps and not bar.console.is_terminal:
                note(f"epoch {report.epoch}/{report.epochs}: {info}, {report.seconds:.0f} s")

        net = train(config, training, images, checkpoint=checkpoint, progress=show, device=place)
    save_net(output, net, training=provenance(training, images))
    checkpoint.unlink(missing_ok=True)
    train_error = error_rate(net, images)
    if as_json:
        print_json(
            {"model": str(output), "network": config.to_dict(), "train_error_float": train_error}
        )
        return
    note(
        f"written to {output}; float network's error on all of {images.name}: "
        f"{100 * train_error:.2f} %\n  next: bnnmcu evaluate {output} --data ..."
    )


_OF_ADVERSARIAL = ("clean_epochs", "pgd_eps", "pgd_step", "pgd_steps", "fgsm_scale")


def _refuse_typed(needed: str) -> None:
    """Options that mean nothing here would otherwise be forgotten silently.

    Raises:
        UsageError: one of them was typed.
    """
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name in _OF_ADVERSARIAL and source is ParameterSource.COMMANDLINE:
            raise UsageError(
                f"{parameter.opts[0]} says how adversarial examples are made",
                where=parameter.opts[0],
                hint=f"add {needed}, or leave it out",
            )

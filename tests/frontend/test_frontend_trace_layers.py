"""Convolutions, linear layers, norms, pools and shapes in their usual spellings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from styles import settle
from torch import Tensor, nn
from tracing import agree, kinds

from bnnmcu.frontend.trace import trace, trace_with_notes
from bnnmcu.network import AvgPool, Conv, Linear, MaxPool, Network, Pad, shapes


class _Sign(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sign(x)


class _Call(nn.Module):
    def __init__(self, it: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.it = it

    def forward(self, x: Tensor) -> Tensor:
        return self.it(x)


class _Binary(nn.Conv2d):
    """Binary weights by a function of the real ones."""

    def __init__(self, it: Callable[[Tensor], Tensor]) -> None:
        super().__init__(2, 6, 3, bias=False)
        self.it = it

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.it(self.weight))


class _Hand(nn.Module):
    """Batch norm written by hand."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.register_buffer("mean", torch.linspace(-1, 1, channels).reshape(1, -1, 1, 1))
        self.register_buffer("var", torch.linspace(0.5, 2, channels).reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / torch.sqrt(self.var + 1e-5) * self.gamma + self.beta


class _Gates(nn.Module):
    """A constant gate per channel, computed from parameters: folds to a scale."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 6)
        self.register_buffer("code", torch.rand(1, 4))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc(self.code))[:, :, None, None]


def _conv(*args: Any, **options: Any) -> list[nn.Module]:
    return [nn.Conv2d(2, 6, *args, **options), nn.Flatten()]


_IMAGE, _LINE, _VECTOR = (2, 9, 8), (3, 21), (12,)
Modules = Callable[[], list[nn.Module]]

# Name: (input shape, modules, operations).
_LAYERS: dict[str, tuple[tuple[int, ...], Modules, str]] = {
    "conv": (_IMAGE, lambda: _conv(3), "Conv Flatten"),
    "stride, padding": (_IMAGE, lambda: _conv((2, 3), (2, 1), (1, 2)), "Conv Flatten"),
    "dilation": (_IMAGE, lambda: _conv(3, dilation=(2, 3), padding=3), "Conv Flatten"),
    "same": (_IMAGE, lambda: _conv((3, 4), padding="same", dilation=(1, 2)), "Conv Flatten"),
    "same even": (_IMAGE, lambda: _conv((2, 2), padding="same"), "Conv Flatten"),
    "valid": (_IMAGE, lambda: _conv(3, padding="valid"), "Conv Flatten"),
    "groups": (_IMAGE, lambda: _conv(3, groups=2), "Conv Flatten"),
    "1x1": (_IMAGE, lambda: _conv(1, bias=False), "Conv Flatten"),
    "wide padding": (_IMAGE, lambda: _conv(1, padding=2), "Conv Flatten"),
    "depthwise": (_IMAGE, lambda: [nn.Conv2d(2, 2, 3, groups=2), nn.Flatten()], "Conv Flatten"),
    "conv1d": (_LINE, lambda: [nn.Conv1d(3, 5, 4, 2, 1), nn.Flatten()], "Conv Flatten"),
    "conv1d same": (
        _LINE, lambda: [nn.Conv1d(3, 5, 4, padding="same", dilation=3), nn.Flatten()],
        "Conv Flatten"),
    "linear": (_VECTOR, lambda: [nn.Linear(12, 4)], "Linear"),
    "linear, no bias": (_VECTOR, lambda: [nn.Linear(12, 4, bias=False)], "Linear"),
    "matmul": (_VECTOR, lambda: [_Call(lambda x: x @ _MATRIX.to(x))], "Linear"),
    "mm": (_VECTOR, lambda: [_Call(lambda x: torch.mm(x, _MATRIX.to(x)) + 1)], "Linear Affine"),
    "addmm": (
        _VECTOR, lambda: [_Call(lambda x: torch.addmm(_MATRIX[0].to(x), x, _MATRIX.to(x)))],
        "Linear"),
    "flat image": (_IMAGE, lambda: [nn.Flatten(), nn.Linear(144, 4)], "Flatten Linear"),
    "batch norm 1d": (_VECTOR, lambda: [nn.Linear(12, 4), nn.BatchNorm1d(4)], "Linear Affine"),
    "batch norm on lines": (
        _LINE, lambda: [nn.BatchNorm1d(3), nn.Flatten()], "Affine Flatten"),
    "batch norm, not affine": (
        _IMAGE, lambda: [nn.BatchNorm2d(2, affine=False), nn.Flatten()], "Affine Flatten"),
    "batch norm, eps": (_IMAGE, lambda: [nn.BatchNorm2d(2, eps=0.1), *_conv(3)],
                        "Affine Conv Flatten"),
    "batch norm by hand": (_IMAGE, lambda: [_Hand(2), nn.Flatten()], "Affine Flatten"),
    "gates of constants": (_IMAGE, lambda: [nn.Conv2d(2, 6, 3), _Gates(), nn.Flatten()],
                           "Conv Affine Flatten"),
    "max pool": (_IMAGE, lambda: [nn.MaxPool2d(2), nn.Flatten()], "MaxPool Flatten"),
    "max pool ceil": (
        _IMAGE, lambda: [nn.MaxPool2d(2, ceil_mode=True), nn.Flatten()], "MaxPool Flatten"),
    "max pool ceil, padded": (
        _IMAGE, lambda: [nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.Flatten()], "MaxPool Flatten"),
    "max pool dilated": (
        _IMAGE, lambda: [nn.MaxPool2d((2, 3), 1, (1, 0), 2), nn.Flatten()], "MaxPool Flatten"),
    "max pool indices": (
        _IMAGE, lambda: [_Call(lambda x: F.max_pool2d(x, 2, return_indices=True)[0]), nn.Flatten()],
        "MaxPool Flatten"),
    "max pool 1d": (
        _LINE, lambda: [nn.MaxPool1d(4, 3, 1, ceil_mode=True), nn.Flatten()], "MaxPool Flatten"),
    "avg pool": (_IMAGE, lambda: [nn.AvgPool2d(2), nn.Flatten()], "AvgPool Flatten"),
    "avg pool padded": (_IMAGE, lambda: [nn.AvgPool2d(3, 2, 1), nn.Flatten()], "AvgPool Flatten"),
    "avg pool divisor": (
        _IMAGE, lambda: [nn.AvgPool2d(3, 2, 1, divisor_override=5), nn.Flatten()],
        "AvgPool Flatten"),
    "avg pool ceil that fits": (
        _IMAGE, lambda: [nn.AvgPool2d(3, (3, 1), ceil_mode=True), nn.Flatten()],
        "AvgPool Flatten"),
    "avg pool exclude without padding": (
        _IMAGE, lambda: [nn.AvgPool2d(2, count_include_pad=False), nn.Flatten()],
        "AvgPool Flatten"),
    "avg pool 1d": (_LINE, lambda: [nn.AvgPool1d(4, 2, 1), nn.Flatten()], "AvgPool Flatten"),
    "adaptive avg": (_IMAGE, lambda: [nn.AdaptiveAvgPool2d(1), nn.Flatten()], "AvgPool"),
    "adaptive avg (3, 4)": (
        _IMAGE, lambda: [nn.AdaptiveAvgPool2d((3, 4)), nn.Flatten()], "AvgPool Flatten"),
    "adaptive avg, None": (
        _IMAGE, lambda: [nn.AdaptiveAvgPool2d((None, 1)), nn.Flatten()], "AvgPool Flatten"),
    "adaptive avg 1d": (_LINE, lambda: [nn.AdaptiveAvgPool1d(1), nn.Flatten()], "AvgPool"),
    "adaptive max": (_IMAGE, lambda: [nn.AdaptiveMaxPool2d(1), nn.Flatten()], "MaxPool"),
    "mean": (_IMAGE, lambda: [_Call(lambda x: x.mean((2, 3)))], "AvgPool"),
    "mean twice": (_IMAGE, lambda: [_Call(lambda x: x.mean(2).mean(2))], "AvgPool AvgPool"),
    "mean, kept": (
        _IMAGE, lambda: [_Call(lambda x: x.mean((-1, -2), keepdim=True).squeeze())], "AvgPool"),
    "mean of a view": (_IMAGE, lambda: [_Call(lambda x: x.view(1, 2, -1).mean(-1))], "AvgPool"),
    "sum": (_IMAGE, lambda: [_Call(lambda x: x.sum((2, 3)))], "AvgPool"),
    "amax": (_IMAGE, lambda: [_Call(lambda x: torch.amax(x, (2, 3)))], "MaxPool"),
    "max": (_IMAGE, lambda: [_Call(lambda x: x.flatten(2).max(2)[0])], "MaxPool"),
    "mean of lines": (_LINE, lambda: [_Call(lambda x: x.mean(-1))], "AvgPool"),
    "strided slice": (_IMAGE, lambda: [_Call(lambda x: x[:, :, ::2, ::3]), nn.Flatten()],
                      "MaxPool MaxPool Flatten"),
    "zero pad": (_IMAGE, lambda: [nn.ZeroPad2d((1, 2, 3, 0)), *_conv(3)], "Pad Conv Flatten"),
    "constant pad": (
        _IMAGE, lambda: [nn.ConstantPad2d(1, -1.0), *_conv(3)], "Pad Conv Flatten"),
    "F.pad": (_LINE, lambda: [_Call(lambda x: F.pad(x, (2, 0))), nn.Conv1d(3, 4, 3), nn.Flatten()],
              "Pad Conv Flatten"),
    "no pad": (_IMAGE, lambda: [_Call(lambda x: F.pad(x, (0, 0))), nn.Flatten()], "Flatten"),
    "view": (_IMAGE, lambda: [_Call(lambda x: x.view(x.size(0), -1)), nn.Linear(144, 3)],
             "Flatten Linear"),
    "reshape": (_IMAGE, lambda: [_Call(lambda x: x.reshape(-1, 2 * 9 * 8)), nn.Linear(144, 3)],
                "Flatten Linear"),
    "there and back": (
        _IMAGE, lambda: [_Call(lambda x: x.unsqueeze(2).squeeze(2)), nn.Flatten()], "Flatten"),
    "channels last, flattened": (
        _IMAGE,
        lambda: [nn.Conv2d(2, 6, 3), _Call(lambda x: x.permute(0, 2, 3, 1).flatten(1)),
                 nn.BatchNorm1d(252), _Sign(), nn.Linear(252, 3)],
        "Conv Flatten Affine Sign Linear"),
    "permuted and back": (
        _IMAGE,
        lambda: [nn.Conv2d(2, 6, 3),
                 _Call(lambda x: torch.sign(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)),
                 nn.Flatten()],
        "Conv Sign Flatten"),
    "transposed twice": (
        _LINE, lambda: [nn.Conv1d(3, 4, 3), _Call(lambda x: x.transpose(1, 2).mT), nn.Flatten()],
        "Conv Flatten"),
}  # fmt: skip
_MATRIX = torch.randn(12, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("case", _LAYERS)
def test_layers(case: str) -> None:
    shape, modules, names = _LAYERS[case]
    torch.manual_seed(0)
    module = settle(nn.Sequential(*modules()), shape, 3)
    example = torch.rand(1, *shape)
    network = trace(module, example)
    assert kinds(network) == names.split()
    agree(network, module, example)


def _of(network: Network, kind: type) -> Any:
    (op,) = [op for op in network.ops if isinstance(op, kind)]
    return op


def test_attributes() -> None:
    def only(module: nn.Module, kind: type, shape: tuple[int, ...] = _IMAGE) -> Any:
        network = trace(nn.Sequential(module, nn.Flatten()), torch.rand(1, *shape))
        return _of(network, kind)

    conv = only(nn.Conv2d(2, 4, (3, 2), (2, 1), (1, 0), (1, 3), 2), Conv)
    assert (conv.stride, conv.padding, conv.dilation) == ((2, 1), (1, 0, 1, 0), (1, 3))
    assert (conv.groups, conv.weights.shape, conv.drawn) == (2, (4, 1, 3, 2), False)
    line = only(nn.Conv1d(3, 5, 4, 2, 1, 2), Conv, _LINE)
    assert (line.stride, line.padding, line.dilation) == ((1, 2), (0, 1, 0, 1), (1, 2))
    assert line.weights.shape == (5, 3, 1, 4)
    # torch pads the odd one at the end.
    assert only(nn.Conv2d(2, 4, (2, 3), padding="same"), Conv).padding == (0, 1, 1, 1)
    assert only(nn.MaxPool2d(2, ceil_mode=True), MaxPool).padding == (0, 0, 1, 0)
    assert only(nn.AvgPool2d(3, divisor_override=4), AvgPool).divisor == 4
    assert only(nn.ConstantPad2d((1, 2, 3, 4), 0.5), Pad).padding == (3, 1, 4, 2)
    assert only(nn.ConstantPad2d((1, 2, 3, 4), 0.5), Pad).value == 0.5


def _alpha(w: Tensor) -> Tensor:
    return w.abs().mean((1, 2, 3), keepdim=True)


def _standardised(w: Tensor) -> Tensor:
    flat = w.view(w.size(0), -1)
    flat = (flat - flat.mean(1, keepdim=True)) / flat.std(1, keepdim=True)
    return torch.sign(flat).view_as(w)


_WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "sign": torch.sign,
    "where": lambda w: torch.where(w >= 0, 1.0, -1.0),
    "alpha": lambda w: w.sign() * _alpha(w),
    "alpha of data": lambda w: w.data.sign() * _alpha(w.data),
    "detach": lambda w: (w.sign() - w).detach() + w,
    "clamp trick": lambda w: w.sign().detach() - w.clamp(-1, 1).detach() + w.clamp(-1, 1),
    "standardised": _standardised,
    "power of two": lambda w: w.sign() * 2 ** torch.round(torch.log2(_alpha(w))),
    "tanh": lambda w: torch.tanh(100 * w).round(),
    "ternary": lambda w: torch.where(w.abs() < 0.1, torch.zeros_like(w), w.sign()),
    "real": lambda w: w,
}


@pytest.mark.parametrize("spelling", _WEIGHTS)
def test_weights_are_folded(spelling: str) -> None:
    it = _WEIGHTS[spelling]
    torch.manual_seed(0)
    module = nn.Sequential(_Binary(it), nn.Flatten()).eval()
    network = trace(module, torch.rand(1, *_IMAGE))
    with torch.no_grad():
        weights = it(module[0].weight).double().numpy()
    # The detach trick leaves (1 - w) + w, which need not be 1 to the last bit.
    assert np.abs(_of(network, Conv).weights - weights).max() < 1e-6


class _Drawn(nn.Module):
    """A convolution and a linear layer whose weights are drawn."""

    def __init__(self, draw: Callable[[Tensor], Tensor], bias: bool = True) -> None:
        super().__init__()
        self.draw = draw
        self.weight = nn.Parameter(torch.linspace(0, 1, 108).reshape(6, 2, 3, 3))
        self.bias = nn.Parameter(torch.linspace(-1, 1, 6)) if bias else None
        self.fc = nn.Parameter(torch.linspace(0, 1, 18).reshape(3, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(torch.sign(x - 0.5), self.draw(self.weight), self.bias)
        return F.linear(torch.sign(x.mean((2, 3))), self.draw(self.fc))


def _straight_through(p: Tensor) -> Tensor:
    bits = torch.bernoulli(p) * 2 - 1
    return (bits - p).detach() + p


_DRAWS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "bernoulli": (lambda p: 2 * torch.bernoulli(p) - 1, 1.0),
    "bernoulli method": (lambda p: p.bernoulli() * 2.0 - 1.0, 1.0),
    "rand <": (lambda p: torch.where(torch.rand_like(p) < p, 1.0, -1.0), 1.0),
    "rand >": (lambda p: torch.where(torch.rand(p.shape) > p, -1.0, 1.0), 1.0),
    "p > rand": (lambda p: (p > torch.rand_like(p)).float() * 2 - 1, 1.0),
    "sign": (lambda p: torch.sign(p - torch.rand_like(p)), 1.0),
    "uniform_": (
        lambda p: torch.where(torch.empty_like(p).uniform_(-1, 1) < 2 * p - 1, 1.0, -1.0), 1.0
    ),
    "straight through": (_straight_through, 1.0),
    "scaled": (lambda p: 0.25 * (2 * torch.bernoulli(p) - 1), 0.25),
    "negative": (lambda p: (1 - 2 * torch.bernoulli(1 - p)) * 0.5, 0.5),
}  # fmt: skip


@pytest.mark.parametrize("spelling", _DRAWS)
def test_drawn_weights(spelling: str) -> None:
    draw, scale = _DRAWS[spelling]
    module = _Drawn(draw).eval()
    state = torch.get_rng_state()
    network = trace(module, torch.rand(1, *_IMAGE, generator=torch.Generator().manual_seed(3)))
    assert torch.equal(state, torch.get_rng_state()), "the user's generator is as it was"
    conv, linear = _of(network, Conv), _of(network, Linear)
    assert conv.drawn
    assert linear.drawn
    assert np.abs(conv.weights - module.weight.detach().numpy()).max() < 1e-6
    assert np.abs(linear.weights - module.fc.detach().numpy()).max() < 1e-6
    assert conv.bias is None
    after = next(op for op in network.ops if op.source == conv.name)
    assert np.allclose(after.scale, scale)
    assert np.allclose(after.offset, module.bias.detach().numpy())
    behind = [op for op in network.ops if op.source == linear.name]
    assert len(behind) == (scale != 1)


def test_the_papers_network() -> None:
    from bnnmcu.nn.config import PaperConfig
    from bnnmcu.nn.paper import build

    module = build(PaperConfig(kind="S", filters=6)).eval()
    network = trace(module, torch.rand(1, 1, 28, 28), name="S6")
    assert [op.name for op in network.ops if isinstance(op, Conv) and op.drawn] == ["conv3"]
    assert network.ops[-1].name == "dense"
    assert network.classes == 10


def test_inputs_of_other_shapes() -> None:
    """What a board is sent is what the first layer sees."""

    class Frames(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(5, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x.permute(0, 2, 1)).mean(2)

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x.view(-1, 1, 6, 7)).mean((2, 3))

    class Wave(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(1, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x.unsqueeze(1)).mean(2)

    assert trace(Frames(), torch.rand(1, 9, 5)).input_shape == (5, 1, 9)
    assert trace(Flat(), torch.rand(1, 42)).input_shape == (1, 6, 7)
    assert trace(Wave(), torch.rand(1, 42)).input_shape == (1, 1, 42)
    plain = trace(nn.Sequential(nn.Flatten(), nn.Linear(42, 3)), torch.rand(1, 1, 6, 7))
    assert plain.input_shape == (1, 6, 7)


def test_pixels() -> None:
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten())
    network = trace(module, torch.rand(1, *_IMAGE), mean=(0.5, 0.25), std=0.5)
    assert np.allclose(network.input_scale, [2 / 255] * 2)
    assert np.allclose(network.input_offset, [-1.0, -0.5])


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.act(self.conv(torch.sign(x)))
        return F.relu(self.act(x * 2) - 0.5)


def test_names() -> None:
    class Names(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential(_Block(), _Block())
            self.input = nn.Conv2d(2, 2, 1)
            setattr(self, "fc 1", nn.Linear(2, 3))

        def forward(self, x: Tensor) -> Tensor:
            x = self.blocks(x)
            return getattr(self, "fc 1")(self.input(x).mean((2, 3)))

    network = trace(Names(), torch.rand(1, *_IMAGE), name="my net/2")
    assert network.name == "my_net_2"
    names = [op.name for op in network.ops]
    assert len(set(names)) == len(names)
    wanted_names = "sign conv act add act:2 relu"
    for wanted in [f"blocks.{n}.{w}" for n in (0, 1) for w in wanted_names.split()] + [
        "input:2",
        "fc_1",
    ]:
        assert wanted in names, (wanted, names)
    assert shapes(network)["blocks.1.add"] == _IMAGE


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (lambda x: F.log_softmax(x, 1), "log_softmax"),
        (nn.Softmax(-1), "softmax"),
        (lambda x: x.argmax(1), "argmax"),
        (lambda x: torch.softmax(x, 1).argmax(1), "argmax"),
        (torch.sigmoid, "sigmoid"),
    ],
)
def test_what_is_left_out_at_the_end(end: Callable[[Tensor], Tensor], words: str) -> None:
    module = nn.Sequential(nn.Linear(12, 4), _Call(end)).eval()
    result = trace_with_notes(module, torch.rand(1, 12))
    assert kinds(result.network) == ["Linear"]
    assert words in result.notes[0][1]
    assert trace_with_notes(nn.Linear(12, 4), torch.rand(1, 12)).notes == ()


def test_the_module_is_left_alone() -> None:
    module = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU(inplace=True), nn.Flatten()
    )
    module.train()
    module[2].eval()
    module[0].weight.grad = torch.ones_like(module[0].weight)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    example = torch.rand(1, *_IMAGE)
    kept, generator, grad = example.clone(), torch.get_rng_state(), torch.is_grad_enabled()
    trace(module, example)
    assert [m.training for m in module] == [True, True, False, True, True]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(p.requires_grad for p in module.parameters())
    assert torch.equal(module[0].weight.grad, torch.ones_like(module[0].weight))
    assert torch.equal(example, kept)
    assert torch.equal(generator, torch.get_rng_state())
    assert torch.is_grad_enabled() == grad


def test_float64_and_compiled_modules() -> None:
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten())
    wide = trace(nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten()).double(),
                 torch.rand(1, *_IMAGE, dtype=torch.float64))  # fmt: skip
    assert kinds(wide) == ["Conv", "Flatten"]
    wrapped = torch.compile(module)
    network = trace(wrapped, torch.rand(1, *_IMAGE))
    assert network.name == "Sequential"
    assert [op.name for op in network.ops] == ["0", "1"]


class _ReAct(nn.Module):
    """ReActNet: shifted signs, PReLU between two learned shifts, a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.move1, self.move2, self.move3 = (
            nn.Parameter(torch.zeros(1, 4, 1, 1)) for _ in range(3)
        )
        self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.prelu = nn.PReLU(4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.sign(x + self.move1.expand_as(x))
        y = F.conv2d(y, self.conv.weight.sign() * _alpha(self.conv.weight), padding=1)
        return self.prelu(self.bn(y) + x + self.move2.expand_as(x)) + self.move3


def test_reactnet_blocks() -> None:
    torch.manual_seed(0)
    blocks = nn.Sequential(nn.Conv2d(2, 4, 1), _ReAct(), _ReAct(), nn.Flatten())
    module = settle(blocks, _IMAGE, 2)
    example = torch.rand(1, *_IMAGE)
    network = trace(module, example)
    block = "Affine Sign Conv Affine Add Affine PRelu"
    # The shifts after one block and before the next are one where that saves an operation.
    assert kinds(network).count("PRelu") == kinds(network).count("Sign") == 2
    assert len(network.ops) <= 1 + 2 * (len(block.split()) + 1) + 1
    agree(network, module, example)


def test_parametrised_and_pruned_weights() -> None:
    from torch.nn.utils import parametrize, prune

    class Sign(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight.sign()

    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten())
    parametrize.register_parametrization(module[0], "weight", Sign())
    prune.l1_unstructured(module[1], "weight", 0.5)
    network = trace(module, torch.rand(1, *_IMAGE))
    one, two = (op for op in network.ops if isinstance(op, Conv))
    assert set(np.unique(one.weights)) == {-1.0, 1.0}
    assert (two.weights == 0).mean() == 0.5

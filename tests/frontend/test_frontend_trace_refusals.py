"""What cannot be traced, and what a user is told: the layer, what was seen, what to write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnmcu.errors import BnnmcuError, UnsupportedModelError, UsageError
from bnnmcu.frontend.trace import trace

_EXAMPLE = torch.rand(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
_SHARED_P = torch.linspace(0.1, 0.9, 8).view(2, 4, 1, 1)


class _Layer(nn.Module):
    """The layer that is refused, by its path ``body.layer``."""

    def __init__(self, it: Callable[..., Any]) -> None:
        super().__init__()
        self.it = it if not isinstance(it, nn.Module) else None
        if isinstance(it, nn.Module):
            self.inner = it

    def forward(self, x: Tensor) -> Any:
        return self.inner(x) if self.it is None else self.it(x)


class _Net(nn.Module):
    def __init__(self, it: Callable[..., Any]) -> None:
        super().__init__()
        self.body = nn.ModuleDict({"stem": nn.Conv2d(4, 4, 3, padding=1), "layer": _Layer(it)})
        self.after = nn.Flatten()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.body["layer"](self.body["stem"](x)))


class _Squeeze(nn.Module):
    """Squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc(x.mean((2, 3))))[:, :, None, None]


class _InputScale(nn.Module):
    """XNOR-Net's K."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        scale = F.avg_pool2d(x.abs().mean(1, keepdim=True), 3, 1, 1)
        return self.conv(x.sign()) * scale


class _Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2).transpose(1, 2)
        return F.scaled_dot_product_attention(flat, flat, flat)


class _Recurrent(nn.Module):
    def __init__(self, kind: type) -> None:
        super().__init__()
        self.rnn = kind(32, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x.permute(0, 2, 1, 3).flatten(2))[0]


class _TrainingNorm(nn.Module):
    """Batch norm by hand, with the batch's own statistics."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True)


def _shuffle(x: Tensor) -> Tensor:
    return x.view(1, 2, 2, 8, 8).transpose(1, 2).reshape(1, 4, 8, 8)


# Case: (layer, words of what, words of the hint).
_LAYERS: dict[str, tuple[Callable[..., Any], str, str]] = {
    "layer norm": (nn.LayerNorm([8, 8]), "layer normalisation", "BatchNorm"),
    "group norm": (nn.GroupNorm(2, 4), "group normalisation", "BatchNorm"),
    "instance norm": (nn.InstanceNorm2d(4), "instance normalisation", "BatchNorm"),
    "rms norm": (nn.RMSNorm(8), "RMS normalisation", "BatchNorm"),
    "batch norm without statistics": (
        nn.BatchNorm2d(4, track_running_stats=False), "statistics of the batch",
        "track_running_stats=True"),
    "batch norm by hand": (_TrainingNorm(), "over the batch", "x.mean((2, 3))"),
    "dropout that stays active": (F.dropout, "dropout that is active in eval mode",
                                  "training=self.training"),
    "noise": (lambda x: x + torch.randn_like(x), "random numbers", "eval mode"),
    "bernoulli activations": (lambda x: torch.bernoulli(torch.sigmoid(x)), "curve, sigmoid",
                              "hardtanh"),
    "gelu": (nn.GELU(), "a curve, gelu", "hardtanh"),
    "silu": (nn.SiLU(), "a curve, silu", "hardtanh"),
    "elu": (nn.ELU(), "a curve, elu", "hardtanh"),
    "hardswish": (nn.Hardswish(), "a curve, hardswish", "hardtanh"),
    "tanh": (nn.Tanh(), "a curve, tanh", "directly before a sign"),
    "sigmoid": (lambda x: 2 * torch.sigmoid(x) - 0.9, "a curve, sigmoid", "hardtanh"),
    "squeeze and excitation": (_Squeeze(), "curve, sigmoid", "hardtanh"),
    "product": (lambda x: x * torch.relu(x - 1), "multiplies two activations", "constants"),
    "square": (lambda x: x * x, "multiplies two activations", "constants"),
    "cube": (lambda x: x**3, "the power 3", "hardtanh"),
    "division": (lambda x: 1 / (x.abs() + 1), "reciprocal", "hardtanh"),
    "division by an activation": (lambda x: x / (x.abs() + 1), "divides by an activation",
                                  "constants"),
    "input scale K": (_InputScale(), "reduces an activation over channels", "XNOR-Net"),
    "concatenation": (lambda x: torch.cat([x, x.sign()], 1), "concatenates", "conv_a(a)"),
    "split": (lambda x: x.chunk(2, 1)[0], "splits an activation", "groups=2"),
    "channel slice": (lambda x: x[:, :2], "takes some channels", "groups=2"),
    "crop": (lambda x: x[:, :, 1:-1], "cuts a piece out", "stride"),
    "one row": (lambda x: x[:, :, 0], "takes a part", "groups=2"),
    "channel shuffle": (_shuffle, "reshapes an activation", "flatten once"),
    "nn.ChannelShuffle": (nn.ChannelShuffle(2), "shuffles channels", "weights"),
    "upsampling": (nn.Upsample(scale_factor=2), "upsampling", "leave upsampling away"),
    "pixel shuffle": (nn.PixelShuffle(2), "shuffles pixels", "leave upsampling away"),
    "transposed convolution": (nn.ConvTranspose2d(4, 2, 2), "a transposed convolution",
                               "use a convolution"),
    "attention": (_Attention(), "attention", "nn.Conv1d"),
    "LSTM": (_Recurrent(nn.LSTM), "an LSTM", "nn.Conv1d"),
    "GRU": (_Recurrent(nn.GRU), "a GRU", "nn.Conv1d"),
    "reflect padding": (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), "mode 'reflect'",
                        "padding_mode='zeros'"),
    "circular padding": (nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
                         "mode 'circular'", "padding_mode='zeros'"),
    "padding channels": (lambda x: F.pad(x, (0, 0, 0, 0, 2, 2)), "pads the channels",
                         "1x1 convolution"),
    "negative padding": (lambda x: F.pad(x, (-1, -1)), "crops an activation", "stride"),
    "avg pool without padding in the count": (
        nn.AvgPool2d(3, 2, 1, count_include_pad=False), "divides by fewer at the border",
        "count_include_pad=True"),
    "avg pool with ceil_mode": (nn.AvgPool2d(3, 2, ceil_mode=True), "ceil_mode", "ceil_mode=False"),
    "uneven adaptive pooling": (nn.AdaptiveAvgPool2d(3), "windows of several sizes",
                                "divides"),
    "lp pool": (nn.LPPool2d(2, 2), "multiplies two activations", "constants"),
    "mean over everything": (lambda x: x - x.mean(), "over everything", "mean((2, 3))"),
    "per position": (lambda x: x + torch.rand(4, 8, 8), "random numbers", "weights"),
    "a constant per position": (lambda x: x * torch.arange(64.0).reshape(8, 8),
                                "differs from position to position", "(1, C, 1, 1)"),
    "a constant that enlarges": (lambda x: x[:, :, ::8, ::8] * torch.ones(8, 8),
                                 "enlarges an activation", "(1, C, 1, 1)"),
    "several levels": (lambda x: torch.round(x.clamp(0, 1) * 3) / 3, "rounds", "one bit"),
    "integers": (lambda x: (x * 4).int().float(), "rounds an activation to integers", "sign"),
    "half": (lambda x: x.half().float(), "casts an activation to float16", "float32"),
    "equality": (lambda x: (x == 0).float(), "equality", "threshold"),
    "where": (lambda x: torch.where(x > 1, x, x.sign()), "torch.where", "F.prelu"),
    "linear on positions": (nn.Linear(8, 3), "a linear layer on an activation of shape",
                            "torch.flatten(x, 1)"),
    "softmax inside": (lambda x: torch.softmax(x, 1) + x, "softmax", "last layer"),
    "argmax inside": (lambda x: x.argmax(1).float() + 1, "argmax", "last layer"),
    "sorting": (lambda x: x.sort(1)[0], "sorts", "comparisons"),
    "weights of the input": (lambda x: F.conv2d(x, x.mean((2, 3), keepdim=True)),
                             "weights depend on the input", "constants"),
    "unknown operation": (lambda x: torch.erfinv(x), "aten.erfinv.default is not supported",
                          "supported are: abs, adaptive_avg_pool1d, "),
    "value of an activation": (lambda x: x / x.max().item(), "", ""),
    "gaussian weights": (lambda x: F.conv2d(x, torch.randn(2, 4, 1, 1).sign()),
                         "draws random numbers with randn", "torch.bernoulli(p)"),
    "one plane for all filters": (
        lambda x: F.conv2d(x, torch.where(torch.rand(1, 4, 1, 1) < _SHARED_P, 1.0, -1.0)),
        "shares one random number among several values", "torch.bernoulli(p)"),
    "one bit for all filters": (
        lambda x: F.conv2d(x, 2 * torch.bernoulli(_SHARED_P[:1]).expand(2, 4, 1, 1) - 1),
        "shares one random number among several values", "torch.bernoulli(p)"),
    "weights of 0 and 1": (lambda x: F.conv2d(x, torch.bernoulli(torch.full((2, 4, 1, 1), 0.5))),
                           "not -a and +a", "torch.bernoulli(p)"),
    "permuted": (lambda x: F.conv2d(x.permute(0, 3, 1, 2), torch.ones(2, 8, 1, 1)),
                 "permuted", "(N, C, H, W)"),
    "different shapes": (lambda x: x + x.mean((2, 3), keepdim=True), "meet", "same shape"),
    "fold": (lambda x: F.unfold(x, 3), "unfolds windows", "nn.Conv2d"),
    "norm of an activation": (lambda x: F.normalize(x), "a norm of an activation", "BatchNorm"),
    "running sum": (lambda x: x.cumsum(2), "a running sum", "nn.Conv1d"),
}  # fmt: skip
_LAYERS.pop("value of an activation")


@pytest.mark.parametrize("case", _LAYERS)
def test_layers_are_refused_by_name(case: str) -> None:
    it, what, hint = _LAYERS[case]
    with pytest.raises(UnsupportedModelError) as caught:
        trace(_Net(it), _EXAMPLE)
    error = caught.value
    assert error.where is not None
    assert error.where.startswith("body.layer"), error
    assert what in error.what, error
    assert hint in str(error.hint), error


def test_the_first_cause_is_named() -> None:
    """Not where it ends in an operation that cannot use it."""

    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.curve = nn.Conv2d(4, 4, 1), nn.GELU()
            self.norm, self.fc = nn.BatchNorm2d(4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = 1 - self.curve(self.first(x)) * 2
            return self.fc(self.norm(x).amax((2, 3)))

    with pytest.raises(UnsupportedModelError) as caught:
        trace(Deep(), _EXAMPLE)
    assert caught.value.where == "curve"


def test_what_is_not_used_is_not_refused() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.norm = nn.Linear(4, 3), nn.LayerNorm(8)

        def forward(self, x: Tensor) -> Tensor:
            self.norm(x).softmax(1)
            return self.fc(x.mean((2, 3)))

    assert len(trace(Unused(), _EXAMPLE).ops) == 2


# Whole modules.


class _BinaryNet(nn.Linear):
    """Courbariaux's style, as in its PyTorch ports."""

    def forward(self, x: Tensor) -> Tensor:
        if x.size(1) != 256:
            x.data = x.data.sign()
        if not hasattr(self.weight, "org"):
            self.weight.org = self.weight.data.clone()
        self.weight.data = self.weight.org.sign()
        out = F.linear(x, self.weight)
        if self.bias is not None:
            self.bias.org = self.bias.data.clone()
            out += self.bias.view(1, -1).expand_as(out)
        return out


class _DataInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(256, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardtanh(self.one(x.flatten(1)))
        x.data = x.data.sign()
        return self.two(x)


class _Written(nn.Module):
    """Writes to its weights, and so is another network afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(256, 8)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.layer.weight.copy_(self.layer.weight.sign())
        return self.layer(x.flatten(1))


class _Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x.mean((2, 3)) * self.calls


def _call(forward: Callable[[Tensor], Any]) -> nn.Module:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Any:
            return forward(self.conv(x))

    return Network()


def _branch(x: Tensor) -> Tensor:
    if x.sum() > 0:
        x = -x
    return x.mean((2, 3))


def _broken(x: Tensor) -> Tensor:
    raise RuntimeError("the user's own message")


def _wrong_shape(x: Tensor) -> Tensor:
    return F.linear(x.flatten(1), torch.ones(3, 7))


def _flag() -> nn.Module:
    module = nn.Sequential(nn.Conv2d(4, 2, 1), nn.Flatten())
    with torch.no_grad():
        module[0].weight[0, 0] = float("nan")
    return module


def _generator_state(x: Tensor) -> Tensor:
    # Numpy's and Python's generators are invisible to torch: the trace freezes one draw.
    import random

    return x.mean((2, 3)) * random.random()


# Case: (module, error, where, what, hint).
_MODULES: dict[str, tuple[Callable[[], Any], type[BnnmcuError], str, str, str]] = {
    "BinaryNet": (
        lambda: nn.Sequential(nn.Flatten(), _BinaryNet(256, 8), _BinaryNet(8, 3)),
        UnsupportedModelError, "1.weight", "BinaryNet", "without touching .data"),
    "assigned activation": (
        _DataInput, UnsupportedModelError, "_DataInput", ".data", "torch.sign(x) - x"),
    "written weights": (
        _Written, UnsupportedModelError, "layer.weight", "changed by forward", "detach"),
    "changed buffer": (_Counts, UnsupportedModelError, "calls", "eval mode", "self.training"),
    "branch": (lambda: _call(_branch), UnsupportedModelError, "if x.sum() > 0",
               "values of an activation", "torch.where"),
    "tuple": (lambda: _call(lambda x: (x.mean((2, 3)), x)), UnsupportedModelError, "Network",
              "returns a tuple", "logits alone"),
    "dict": (lambda: _call(lambda x: {"logits": x}), UnsupportedModelError, "Network",
             "returns a dict", "logits alone"),
    "feature map": (lambda: _call(torch.relu), UnsupportedModelError, "relu",
                    "(1, 4, 8, 8), not one number for each class", "flatten or pool"),
    "nothing": (lambda: nn.Identity(), UnsupportedModelError, "", "", "flatten"),
    "constant": (lambda: _call(lambda x: torch.ones(1, 3)), UnsupportedModelError, "",
                 "does not depend on the input", "logits"),
    "constant times zero": (lambda: _call(lambda x: x.mean((2, 3)) * 0), UnsupportedModelError,
                            "", "does not depend on the input", "remove"),
    "own exception": (lambda: _call(_broken), UsageError, "raise RuntimeError",
                      "RuntimeError: the user's own message", "must work"),
    "own shape error": (lambda: _call(_wrong_shape), UsageError, "F.linear(x.flatten(1)",
                        "mat1 and mat2", "(1, 4, 8, 8)"),
    "wrong channels": (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten()), UsageError, "",
                       "expected input", "must work"),
    "other random numbers": (lambda: _call(_generator_state), UnsupportedModelError, "Network",
                             "not the same", "parameters and buffers"),
    "NaN": (_flag, UsageError, "0.weight", "NaN", "diverged"),
    "half": (lambda: _call(torch.relu).half(), UsageError, "conv.weight", "float16",
             "module.float()"),
    "bfloat16": (lambda: _call(torch.relu).bfloat16(), UsageError, "conv.weight", "bfloat16",
                 "module.float()"),
    "double": (lambda: _call(torch.relu).double(), UsageError, "conv.weight", "float64",
               "example_input.to(torch.float64)"),
    "meta": (lambda: _call(torch.relu).to("meta"), UsageError, "conv.weight", "meta",
             "module.cpu()"),
    "complex": (lambda: nn.Linear(4, 4, dtype=torch.complex64), UsageError, "weight", "complex",
                "real"),
    "lazy": (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), UsageError, "1.weight",
             "no shape yet", "run the module once"),
    "class": (lambda: nn.Linear, UsageError, "", "Linear is a class", "Linear(...)"),
    "state dict": (lambda: nn.Linear(2, 2).state_dict(), UsageError, "", "OrderedDict", "network"),
    "data parallel": (lambda: nn.DataParallel(nn.Flatten()), UsageError, "", "DataParallel",
                      "module.module"),
    "scripted": (lambda: torch.jit.trace(nn.Flatten(), _EXAMPLE), UnsupportedModelError, "",
                 "TorchScript", "Python module"),
}  # fmt: skip


@pytest.mark.parametrize("case", _MODULES)
@pytest.mark.filterwarnings("ignore")
def test_modules_are_refused(case: str) -> None:
    make, kind, where, what, hint = _MODULES[case]
    module = make()
    example = _EXAMPLE
    with pytest.raises(BnnmcuError) as caught:
        trace(module, example)
    error = caught.value
    assert type(error) is kind, error
    assert where in str(error.where), error
    assert what in error.what, error
    assert hint in str(error.hint), error
    assert "Traceback" not in str(error)


@pytest.mark.filterwarnings("ignore")
def test_quantised_modules_are_refused() -> None:
    quantized = pytest.importorskip("torch.ao.nn.quantized")
    with pytest.raises(UnsupportedModelError, match="quantised by torch") as caught:
        trace(nn.Sequential(nn.Flatten(), quantized.ReLU6()), _EXAMPLE)
    assert caught.value.where == "1"


def test_binarynet_that_ran_before_is_refused_too() -> None:
    """Its weights are signs already, so that forward changes no value."""
    module = nn.Sequential(nn.Flatten(), _BinaryNet(256, 8), _BinaryNet(8, 3)).eval()
    module(_EXAMPLE)
    with pytest.raises(BnnmcuError) as caught:
        trace(module, _EXAMPLE)
    assert "BinaryNet" in str(caught.value) or "copied" in str(caught.value)


_INPUTS: dict[str, tuple[Any, str, str]] = {
    "batch": (torch.rand(2, 4, 8, 8), "a batch of one is needed", "example_input[:1]"),
    "no batch": (torch.rand(4, 8, 8), "a batch of one is needed", "unsqueeze(0)"),
    "empty batch": (torch.rand(0, 4, 8, 8), "a batch of one is needed", "torch.rand"),
    "empty": (torch.rand(1, 4, 0, 8), "empty", "torch.rand"),
    "uint8": (torch.zeros(1, 4, 8, 8, dtype=torch.uint8), "uint8, not float32", "/ 255"),
    "int64": (torch.zeros(1, 4, 8, 8, dtype=torch.int64), "int64, not float32", "/ 255"),
    "bool": (torch.zeros(1, 4, 8, 8, dtype=torch.bool), "bool, not float32", "/ 255"),
    "half": (torch.zeros(1, 4, 8, 8, dtype=torch.half), "float16, not float32", "/ 255"),
    "complex": (torch.zeros(1, 4, 8, 8, dtype=torch.complex64), "complex", "channels"),
    "5-D": (torch.rand(1, 1, 4, 8, 8), "(1, C, H, W)", "torch.rand"),
    "1-D": (torch.rand(4), "(1, F)", "torch.rand"),
    "NaN": (torch.full((1, 4, 8, 8), float("nan")), "NaN or infinity", "torch.rand"),
    "infinity": (torch.full((1, 4, 8, 8), float("inf")), "NaN or infinity", "torch.rand"),
    "numpy": (torch.rand(1, 4, 8, 8).numpy(), "ndarray, not a tensor", "torch.rand"),
    "tuple": ((torch.rand(1, 4, 8, 8),), "one input", "torch.rand"),
    "dict": ({"x": torch.rand(1, 4, 8, 8)}, "one input", "torch.rand"),
    "nothing": (None, "NoneType", "torch.rand"),
    "meta": (torch.rand(1, 4, 8, 8, device="meta"), "is on meta", "cpu()"),
}


@pytest.mark.parametrize("case", _INPUTS)
def test_examples_are_refused(case: str) -> None:
    example, what, hint = _INPUTS[case]
    with pytest.raises(UsageError) as caught:
        trace(_call(lambda x: x.mean((2, 3))), example)
    assert caught.value.where == "example_input"
    assert what in caught.value.what
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"mean": (0.1, 0.2)}, "mean"),
        ({"mean": "grey"}, "mean"),
        ({"mean": float("nan")}, "mean"),
        ({"std": 0.0}, "std"),
        ({"std": (1.0, 1.0, 1.0, -1.0)}, "std"),
    ],
)
def test_pixel_scales_are_refused(options: dict[str, Any], where: str) -> None:
    with pytest.raises(UsageError) as caught:
        trace(_call(lambda x: x.mean((2, 3))), _EXAMPLE, **options)
    assert caught.value.where == where


def test_a_misread_layer_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The self-check blames the operation that is wrong."""
    from bnnmcu.frontend.trace import layers
    from bnnmcu.network import Affine

    def wrong(name: str, source: str, scale: Any, offset: Any) -> Affine:
        return Affine(name, source, scale * (1 + 1e-7), offset)

    monkeypatch.setattr(layers, "Affine", wrong)
    module = nn.Sequential(nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2), nn.Flatten()).eval()
    with pytest.raises(UnsupportedModelError, match="does not reproduce the module") as caught:
        trace(module, _EXAMPLE)
    assert caught.value.where == "1"


def test_a_misread_zero_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from bnnmcu.frontend.trace import builder
    from bnnmcu.network import Sign

    monkeypatch.setattr(builder, "Sign", lambda name, source, zero: Sign(name, source, 1))
    module = _call(lambda x: torch.sign(F.relu(x)).mean((2, 3)))
    with pytest.raises(UnsupportedModelError, match="does not reproduce the module") as caught:
        trace(module, _EXAMPLE)
    assert caught.value.where == "sign"

"""What is said of operations that a device cannot run, and what to write instead."""

from __future__ import annotations

__all__ = ["HARDTANH", "KEEP_SHAPE", "MEAN", "PRODUCT", "explain"]

HARDTANH = (
    "use F.hardtanh or F.relu in its place and train on; directly before a sign, tanh can stay"
)
PRODUCT = (
    "multiply by constants only: drop squeeze-and-excitation, attention and gates, and "
    "XNOR-Net's input scale K (XNOR-Net++ learns one scale per channel instead)"
)
MEAN = (
    "average over whole height and width: x.mean((2, 3)) or nn.AdaptiveAvgPool2d(1); "
    "XNOR-Net's input scale K is not supported: learn one scale per channel instead"
)
KEEP_SHAPE = (
    "keep activations as (N, C, H, W) or (N, C, L), and flatten once, "
    "with torch.flatten(x, 1), before the classifier"
)
_NORM = "use nn.BatchNorm, whose statistics are constants on the device, and train again"
_SPLIT = (
    "let both branches read the whole activation through convolutions of their own, and join "
    "them by addition; a grouped convolution (groups=2) also treats halves apart"
)
_JOIN = (
    "add instead of concatenating: conv(cat(a, b)) is conv_a(a) + conv_b(b), with the weights split"
)
_SEQUENCE = "use nn.Conv1d, with dilation for a longer reach, and global average pooling"
_RANDOM = "remove noise from forward in eval mode: make it depend on self.training"

_LEVELS = (
    "rounds an activation to several levels",
    "activations have one bit here: use a sign, or (x > 0).float()",
)

#: Operation (without namespace and overload) to (what it is, what to write instead).
_KNOWN: dict[str, tuple[str, str]] = {
    "layer_norm": ("layer normalisation", _NORM),
    "native_layer_norm": ("layer normalisation", _NORM),
    "rms_norm": ("RMS normalisation", _NORM),
    "group_norm": ("group normalisation", _NORM),
    "native_group_norm": ("group normalisation", _NORM),
    "instance_norm": ("instance normalisation", _NORM),
    "linalg_vector_norm": ("a norm of an activation", _NORM),
    "std": ("a standard deviation of an activation", _NORM),
    "var": ("a variance of an activation", _NORM),
    "var_mean": ("a variance of an activation", _NORM),
    "split": ("splits an activation", _SPLIT),
    "split_with_sizes": ("splits an activation", _SPLIT),
    "chunk": ("splits an activation", _SPLIT),
    "unbind": ("splits an activation", _SPLIT),
    "select": ("takes a part of an activation", _SPLIT),
    "index": ("takes a part of an activation", _SPLIT),
    "index_select": ("takes a part of an activation", _SPLIT),
    "cat": ("concatenates activations", _JOIN),
    "stack": ("concatenates activations", _JOIN),
    "repeat": ("repeats an activation", _JOIN),
    "channel_shuffle": (
        "shuffles channels",
        "permute the input channels of the next layer's weights instead, or use groups=1",
    ),
    "pixel_shuffle": ("shuffles pixels", "leave upsampling away: classifiers only shrink"),
    "conv_transpose1d": ("a transposed convolution", "use a convolution"),
    "conv_transpose2d": ("a transposed convolution", "use a convolution"),
    "conv3d": ("a 3-D convolution", "use nn.Conv2d with the depth as channels"),
    "im2col": ("unfolds windows", "use nn.Conv2d with the same kernel, stride and padding"),
    "lstm": ("an LSTM", _SEQUENCE),
    "gru": ("a GRU", _SEQUENCE),
    "rnn_tanh": ("a recurrent layer", _SEQUENCE),
    "rnn_relu": ("a recurrent layer", _SEQUENCE),
    "scaled_dot_product_attention": ("attention", _SEQUENCE),
    "embedding": ("an embedding", "feed numbers, not indices: the input is uint8 pixels"),
    "item": (
        "turns an activation into a Python number",
        "make it a constant: measure it on the training set and store it as a buffer",
    ),
    "lp_pool2d": ("LP pooling", "use nn.AvgPool2d or nn.MaxPool2d"),
    "fractional_max_pool2d": ("fractional pooling", "use nn.MaxPool2d"),
    "einsum": ("an einsum of activations", "use nn.Conv2d with kernel size 1, or nn.Linear"),
    "bmm": ("a product of activations", PRODUCT),
    "native_dropout": ("dropout that is active in eval mode",
                       "use nn.Dropout, or F.dropout(x, p, training=self.training)"),
    "bernoulli": ("random activations", _RANDOM),
    "randn_like": ("random numbers for an activation", _RANDOM),
    "normal": ("random numbers for an activation", _RANDOM),
    "normal_functional": ("random numbers for an activation", _RANDOM),
    "floor": _LEVELS,
    "ceil": _LEVELS,
    "trunc": _LEVELS,
    "rrelu": ("a random slope", "use nn.LeakyReLU or nn.PReLU"),
    "sort": ("sorts an activation", "use comparisons with constants"),
    "topk": ("sorts an activation", "use comparisons with constants"),
    "cumsum": ("a running sum", _SEQUENCE),
}  # fmt: skip

_CURVES = {
    "gelu", "silu", "elu", "selu", "celu", "mish", "softplus", "exp", "log", "sqrt", "rsqrt",
    "reciprocal", "hardswish", "log_sigmoid", "sin", "cos", "erf", "tanh", "sigmoid", "atan",
    "asinh", "sinh", "pow", "log1p", "expm1", "exp2", "log2", "log10",
}  # fmt: skip


def explain(name: str, supported: list[str]) -> tuple[str, str]:
    """(what, hint) for an operation such as ``aten.layer_norm.default``."""
    plain = name.removeprefix("aten.").split(".")[0].lstrip("_")
    if plain.startswith("upsample"):
        return "upsampling", "leave upsampling away: classifiers only shrink"
    if plain in _CURVES:
        return f"a curve, {plain}", HARDTANH
    if plain in _KNOWN:
        return _KNOWN[plain]
    if "higher_order" in name or plain.startswith("higher_order"):
        return (
            f"control flow inside the graph ({name})",
            "write the network as a fixed sequence of layers",
        )
    names = {n.removeprefix("aten.").split(".")[0] for n in supported}
    known = sorted(n for n in names if not n.startswith("_"))
    return f"the operation {name} is not supported", f"supported are: {', '.join(known)}"

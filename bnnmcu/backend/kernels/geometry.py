"""``bnn_shape_t``: where the windows of a convolution or a pool lie."""

from __future__ import annotations

from bnnmcu.graph import TensorSpec, Window

__all__ = ["shape_fields"]


def shape_fields(
    window: Window, source: TensorSpec, out: TensorSpec, groups: int = 1
) -> dict[str, int]:
    """The fields of ``bnn_shape_t``; the graph's checks keep each within 16 bits."""
    (in_h, in_w, in_c), (out_h, out_w, out_c) = source.shape, out.shape
    return {
        "in_h": in_h,
        "in_w": in_w,
        "in_c": in_c,
        "out_h": out_h,
        "out_w": out_w,
        "out_c": out_c,
        "kernel_h": window.kernel[0],
        "kernel_w": window.kernel[1],
        "stride_y": window.stride[0],
        "stride_x": window.stride[1],
        "pad_y": window.padding[0],
        "pad_x": window.padding[1],
        "dilation_y": window.dilation[0],
        "dilation_x": window.dilation[1],
        "groups": groups,
    }

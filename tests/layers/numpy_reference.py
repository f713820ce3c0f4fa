"""Building blocks of the equations, in plain NumPy and float64."""

import math

import numpy as np


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def relu(x):
    return np.maximum(x, 0.0)


def dense(x, weights):
    kernel, bias = weights
    return np.asarray(x, "float64") @ kernel + bias


def conv2d(x, kernel, stride=1):
    """Bias-free convolution of `[n, h, w, c]` with `"same"` padding."""
    size = kernel.shape[0]
    padding, lengths = [(0, 0)], []
    for length in x.shape[1:3]:
        out = math.ceil(length / stride)
        total = max((out - 1) * stride + size - length, 0)
        padding.append((total // 2, total - total // 2))
        lengths.append(out)
    x = np.pad(np.asarray(x, "float64"), [*padding, (0, 0)])
    outputs = np.zeros((len(x), *lengths, kernel.shape[-1]))
    for i in range(lengths[0]):
        for j in range(lengths[1]):
            top, left = i * stride, j * stride
            window = x[:, top : top + size, left : left + size]
            outputs[:, i, j] = np.einsum("nhwc,hwco->no", window, kernel)
    return outputs


def moments(x, mask=None):
    """Mean and variance of each channel over the positions where `mask` is true."""
    rows = np.asarray(x, "float64")
    rows = rows.reshape(-1, x.shape[-1]) if mask is None else rows[mask]
    return rows.mean(axis=0), rows.var(axis=0)


def resize_bilinear(x, height, width):
    """Resizes `[n, h, w, c]`, with pixels at half-integer coordinates."""
    rows = _interpolation_matrix(x.shape[1], height)
    columns = _interpolation_matrix(x.shape[2], width)
    return np.einsum("ih,jw,nhwc->nijc", rows, columns, x)


def _interpolation_matrix(size_in, size_out):
    matrix = np.zeros((size_out, size_in))
    for i in range(size_out):
        position = (i + 0.5) * size_in / size_out - 0.5
        position = min(max(position, 0.0), size_in - 1.0)
        low = math.floor(position)
        high = min(low + 1, size_in - 1)
        matrix[i, low] += 1.0 - (position - low)
        matrix[i, high] += position - low
    return matrix

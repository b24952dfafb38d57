"""Spectrograms, whose transform Keras keeps as kernels of a convolution or takes from the backend."""
from __future__ import annotations

from typing import Any

import numpy as np

from isomorph.dialects.keras.lowering import KerasBuilder as Op
from isomorph.dialects.keras.lowering import Value
from isomorph.dialects.keras.to_onnx.convolution import convolved
from isomorph.dialects.keras.to_onnx.operations import arctan2
from isomorph.dialects.keras.to_onnx.table import layer

LEAST = 1e-7                                    # keras.backend.epsilon()


def window_of(op: Op, name: Any, length: int) -> np.ndarray:
    """The periodic window functions that Keras knows by name."""
    turns = 2 * np.pi * np.arange(length) / length
    if name in (None, "rect", "boxcar"):
        return np.ones(length)
    if name == "hann":
        return 0.5 - 0.5 * np.cos(turns)
    if name == "hamming":
        return 0.54 - 0.46 * np.cos(turns)
    return op.reject(f"the window {str(name)[:40]!r} is not mapped")


@layer("STFTSpectrogram")
def stft_spectrogram(op: Op, x: Value, *, mode: str = "log", frame_length: int = 256, frame_step: Any = None, padding: str = "valid",
                     expand_dims: bool = False, data_format: str | None = None, **initial: Any) -> Value:
    """Every channel by itself, convolved with two kernels that began as cosines and sines under a window, and may have been trained since."""
    y = op.first(x, data_format)
    channels = op.sizes(y)[1]
    if not isinstance(channels, int):
        return op.reject("the number of its channels is not known")
    time = op.sizes(y)[2] if isinstance(op.sizes(y)[2], int) else op.size_of(y, 2)
    alone = y if channels == 1 else op.reshaped(y, [-1, 1, time])
    parts = [convolved(op, alone, op.need(name), None, frame_step or frame_length // 2, padding, 1)
             for name, absent in (("real_kernel", "imag"), ("imag_kernel", "real")) if mode != absent]
    found = spectrum(op, mode, parts)
    _, bins, frames = op.sizes(found)
    frames = frames if isinstance(frames, int) else op.size_of(found, 2)
    if expand_dims:
        wide = op.reshaped(found, [-1, channels, bins, frames])
        return op.Transpose(wide, perm=[0, 1, 3, 2] if data_format == "channels_first" else [0, 3, 2, 1])
    return op.last(found if channels == 1 else op.reshaped(found, [-1, channels * bins, frames]), data_format)


def spectrum(op: Op, mode: str, parts: list[Value]) -> Value:
    """What a mode makes of the real and the imaginary part, [batch, bins, frames] each."""
    if mode in ("real", "imag"):
        return parts[0]
    real, imaginary = parts
    if mode == "angle":
        return arctan2(op, imaginary, real)
    if mode == "stft":
        return op.Concat(real, imaginary, axis=1)
    power = op.Add(op.Mul(real, real), op.Mul(imaginary, imaginary))
    if mode == "psd":
        inner = op.Slice(power, op.const([1]), op.const([-1]), op.const([1]))
        return op.Add(power, op.Pad(inner, op.const([0, 1, 0, 0, 1, 0])))
    size = op.Sqrt(op.Max(power, op.scalar(LEAST, power)))
    return size if mode == "magnitude" else op.Log(op.Max(size, op.scalar(LEAST, size)))


@layer("MelSpectrogram")
def mel_spectrogram(op: Op, x: Value, *, fft_length: int = 2048, sequence_stride: int = 512, sequence_length: Any = None, window: str = "hann",
                    sampling_rate: int = 16000, num_mel_bins: int = 128, min_freq: float = 20.0, max_freq: Any = None, power_to_db: bool = True,
                    top_db: float = 80.0, mag_exp: float = 2.0, min_power: float = 1e-10, ref_power: float = 1.0) -> Value:
    """Frames of the reflected signal, their spectra by products with cosines and sines, mel bands, decibels."""
    frame, rank = sequence_length or fft_length, op.rank(x)
    half = fft_length // 2
    padded = op.Pad(x, op.const([0] * (rank - 1) + [half] + [0] * (rank - 1) + [half]), mode="reflect")
    size = op.sizes(padded)[-1]
    if not isinstance(size, int):
        return op.reject("the length of its signal is not known")
    starts = np.arange(0, size - fft_length + 1, sequence_stride)
    frames = op.Gather(padded, op.const(starts[:, None] + np.arange(fft_length)), axis=-1)
    shape = np.pad(window_of(op, window, frame), ((fft_length - frame) // 2, fft_length - frame - (fft_length - frame) // 2))
    angles = -2 * np.pi * np.outer(np.arange(fft_length), np.arange(half + 1)) / fft_length
    real, imaginary = (op.MatMul(frames, op.const((part(angles) * shape[:, None]).astype(np.float32))) for part in (np.cos, np.sin))
    power = op.Add(op.Mul(real, real), op.Mul(imaginary, imaginary))
    power = power if mag_exp == 2.0 else op.Pow(power, op.scalar(mag_exp / 2, power))
    bands = op.MatMul(power, op.const(mel_matrix(num_mel_bins, half + 1, sampling_rate, min_freq, max_freq or sampling_rate / 2)))
    bands = decibels(op, bands, top_db, min_power, ref_power) if power_to_db else bands
    return op.Transpose(bands, perm=[*range(rank - 1), rank, rank - 1])


def mel_matrix(bands: int, bins: int, rate: int, low: float, high: float) -> np.ndarray:
    """Triangles between points that lie evenly on the mel scale, 1127 ln(1 + f / 700)."""
    def mel(frequency: Any) -> Any:
        return 1127.0 * np.log(1.0 + frequency / 700.0)

    spectrum_mel = mel(np.linspace(0, rate / 2, bins)[1:])[:, None]
    edges = np.linspace(mel(low), mel(high), bands + 2)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    slopes = np.minimum((spectrum_mel - lower) / (centre - lower), (upper - spectrum_mel) / (upper - centre))
    return np.pad(np.maximum(slopes, 0), ((1, 0), (0, 0))).astype(np.float32)


def decibels(op: Op, x: Value, top: float, least: float, reference: float) -> Value:
    scale = 10 / np.log(10)
    logs = op.Mul(op.Log(op.Max(x, op.scalar(least, x))), op.scalar(scale, x))
    logs = op.Sub(logs, op.scalar(10 * np.log10(max(abs(reference), least)), x))
    highest = op.ReduceMax(logs, keepdims=0)
    return op.Max(logs, op.Sub(highest, op.scalar(top, x)))

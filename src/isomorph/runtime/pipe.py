"""Messages between a session and its worker: a length, a JSON header, then the raw bytes of every array. No pickle.

An array in the message becomes `{"$array": [dtype, shape]}` in the header and its bytes follow in order; an array of text becomes `{"$text": [values, shape]}`;
a dictionary whose keys are not text becomes `{"$pairs": [[key, value], ...]}`.
"""
from __future__ import annotations

import json
import struct
from typing import IO, Any

import numpy as np

LENGTH = struct.Struct("<Q")


def send(file: IO[bytes], message: Any) -> None:
    """Writes one message of None, booleans, numbers, text, arrays, and lists and dictionaries of these."""
    arrays: list[np.ndarray] = []
    header = json.dumps(_flat(message, arrays)).encode()
    file.write(LENGTH.pack(len(header)))
    file.write(header)
    for array in arrays:
        file.write(array.reshape(-1).view(np.uint8).data if array.size else b"")
    file.flush()


def receive(file: Any) -> Any:
    """The next message. Raises `EOFError` where the other side has gone."""
    (length,) = LENGTH.unpack(_exactly(file, LENGTH.size))
    return _deep(json.loads(_exactly(file, length)), file)


def _exactly(file: IO[bytes], length: int) -> bytes:
    data = file.read(length)
    if len(data) != length:
        raise EOFError
    return data


def _flat(value: Any, arrays: list[np.ndarray]) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return _flat_array(np.asarray(value), arrays)
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: _flat(item, arrays) for key, item in value.items()}
        return {"$pairs": [[key, _flat(item, arrays)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_flat(item, arrays) for item in value]
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def _flat_array(array: np.ndarray, arrays: list[np.ndarray]) -> Any:
    shape = list(array.shape)                       # taken first: ascontiguousarray gives a scalar one dimension
    if array.dtype.kind in "OSU":
        return {"$text": [[_flat(item, []) for item in array.ravel().tolist()], shape]}
    arrays.append(np.ascontiguousarray(array))
    return {"$array": [array.dtype.name, shape]}


def _deep(value: Any, file: Any) -> Any:
    if isinstance(value, list):
        return [_deep(item, file) for item in value]
    if not isinstance(value, dict):
        return value
    if "$array" in value:
        return _read_array(file, *value["$array"])
    if "$text" in value:
        return text_array(*value["$text"])
    if "$pairs" in value:
        return {key: _deep(item, file) for key, item in value["$pairs"]}
    return {key: _deep(item, file) for key, item in value.items()}


def _read_array(file: Any, dtype: str, shape: list[int]) -> np.ndarray:
    array = np.empty(shape, element_dtype(dtype))
    if array.size and file.readinto(array.reshape(-1).view(np.uint8).data) != array.nbytes:
        raise EOFError
    return array


def text_array(texts: list[Any], shape: list[int] | tuple[int, ...]) -> np.ndarray:
    """An object array of these texts."""
    array = np.empty(len(texts), object)
    array[:] = texts
    return array.reshape(shape)


def element_dtype(name: str) -> np.dtype:
    """The dtype of this name; what NumPy does not know comes from ml_dtypes, imported only then."""
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes
        return np.dtype(getattr(ml_dtypes, name))

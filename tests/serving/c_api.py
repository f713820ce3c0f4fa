"""Loads a SavedModel by TensorFlow's C API, as TensorFlow Serving does, and runs it.

    python tests/serving/c_api.py LIBRARY VERSION < REQUESTS > ANSWERS

LIBRARY is TensorFlow's shared library and VERSION a SavedModel's folder. Both streams
hold a line of JSON for each run: `{"feeds": {tensor name: serialized TensorProto in
base64}, "fetches": [tensor name]}`, and `{tensor name: nested list}` or `{"error":
message}`. The first answer is `{"seconds": time to load}`, or an error.

No Python package of TensorFlow, Keras or this project is imported.
"""

import base64
import ctypes
import json
import sys
import time

import numpy as np

POINTER, SIZE, TEXT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
# Of tensorflow/core/framework/types.proto.
FLOAT = 1
DTYPES = {FLOAT: "float32", 3: "int32", 9: "int64", 10: "bool", 19: "float16"}


class Buffer(ctypes.Structure):
    _fields_ = [("data", POINTER), ("length", SIZE), ("deallocator", POINTER)]


class Output(ctypes.Structure):
    _fields_ = [("operation", POINTER), ("index", ctypes.c_int)]


def open_library(path):
    """The library, with the types of what its functions return."""
    library = ctypes.CDLL(path)
    for name, result in {
        "TF_NewStatus": POINTER,
        "TF_Message": TEXT,
        "TF_NewSessionOptions": POINTER,
        "TF_NewGraph": POINTER,
        "TF_NewBufferFromString": ctypes.POINTER(Buffer),
        "TF_LoadSessionFromSavedModel": POINTER,
        "TF_GraphOperationByName": POINTER,
        "TF_AllocateTensor": POINTER,
        "TF_TensorData": POINTER,
        "TF_TensorByteSize": SIZE,
        "TF_Dim": ctypes.c_int64,
    }.items():
        getattr(library, name).restype = result
    return library


class Session:
    """A session of a SavedModel; its errors are `RuntimeError`s."""

    def __init__(self, library, folder):
        self._library = library
        self._status = POINTER(library.TF_NewStatus())
        self._graph = POINTER(library.TF_NewGraph())
        self._session = POINTER(
            library.TF_LoadSessionFromSavedModel(
                POINTER(library.TF_NewSessionOptions()),
                None,
                folder.encode(),
                (TEXT * 1)(b"serve"),
                1,
                self._graph,
                None,
                self._status,
            )
        )
        self._check()

    def run(self, feeds, fetches):
        """Arrays of the fetches, by tensor name, for serialized protos of the feeds."""
        tensors = [self._to_tensor(proto) for proto in feeds.values()]
        results = (POINTER * len(fetches))()
        self._library.TF_SessionRun(
            self._session,
            None,
            (Output * len(feeds))(*map(self._output, feeds)),
            (POINTER * len(feeds))(*tensors),
            len(feeds),
            (Output * len(fetches))(*map(self._output, fetches)),
            results,
            len(fetches),
            None,
            0,
            None,
            self._status,
        )
        for tensor in tensors:
            self._library.TF_DeleteTensor(POINTER(tensor))
        self._check()
        return dict(zip(fetches, map(self._to_array, results), strict=True))

    def _check(self):
        if self._library.TF_GetCode(self._status):
            raise RuntimeError(self._library.TF_Message(self._status).decode())

    def _output(self, tensor_name):
        name, index = tensor_name.split(":")
        operation = self._library.TF_GraphOperationByName(self._graph, name.encode())
        if operation is None:
            raise RuntimeError(f"no operation {name}")
        return Output(operation, int(index))

    def _to_tensor(self, proto):
        buffer = self._library.TF_NewBufferFromString(proto, SIZE(len(proto)))
        tensor = self._library.TF_AllocateTensor(FLOAT, None, 0, SIZE(4))
        self._library.TF_TensorFromProto(buffer, POINTER(tensor), self._status)
        self._library.TF_DeleteBuffer(buffer)
        self._check()
        return tensor

    def _to_array(self, tensor):
        tensor = POINTER(tensor)
        rank = self._library.TF_NumDims(tensor)
        shape = [self._library.TF_Dim(tensor, axis) for axis in range(rank)]
        size = self._library.TF_TensorByteSize(tensor)
        content = ctypes.string_at(self._library.TF_TensorData(tensor), size)
        dtype = DTYPES[self._library.TF_TensorType(tensor)]
        self._library.TF_DeleteTensor(tensor)
        return np.frombuffer(content, dtype).reshape(shape)


def main(library, folder):
    """Answers the requests of the standard input."""

    def answer(content):
        print(json.dumps(content), flush=True)

    try:
        library = open_library(library)
        start = time.perf_counter()
        session = Session(library, folder)
        answer({"seconds": time.perf_counter() - start})
        for line in sys.stdin:
            request = json.loads(line)
            feeds = {k: base64.b64decode(v) for k, v in request["feeds"].items()}
            try:
                arrays = session.run(feeds, request["fetches"])
                answer({name: array.tolist() for name, array in arrays.items()})
            except RuntimeError as error:
                answer({"error": str(error)})
    except RuntimeError as error:
        answer({"error": str(error)})
    loaded = {name.split(".")[0] for name in sys.modules}
    assert not loaded & {"tensorflow", "keras", "hccm_tf", "tests"}, loaded


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Small files of the formats that are only recognised, like `make_identify`, which imports this module last."""
from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import zlib

from golden.make_identify import (
    STATE_DICT,
    U8,
    U32,
    Flat,
    as_json,
    case,
    core_ml,
    gguf_file,
    hdf5,
    message,
    npy_file,
    onnx_model,
    safetensors_file,
    tarred,
    text,
    torch_zip,
    zipped,
)


@case("a.onnx", "empty")
def empty() -> bytes:
    return b""


@case("a.safetensors", "git_lfs", "", "1", size=12345)
def git_lfs() -> bytes:
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


@case("a.gguf", "html", title="Sign in")
def html() -> bytes:
    return b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body></body></html>\n"


@case("a.engine", "tensorrt", "")
def tensorrt() -> bytes:
    return b"ftrt" + struct.pack("<LQ", 1, 64) + bytes(64)


@case("b.engine", "tensorrt", "with metadata")
def tensorrt_with_metadata() -> bytes:
    metadata = as_json({"description": "made", "imgsz": [640, 640]})
    return struct.pack("<L", len(metadata)) + metadata + tensorrt()


IR = b'<?xml version="1.0"?>\n<net name="net" version="11">\n<layers><layer id="0" name="x" type="Parameter" version="opset1"/></layers><edges/></net>\n'


@case("a.xml", "openvino", "IR", "11", name="net", companions=["a.bin"])
def openvino() -> bytes:
    return IR


@case("ir", "openvino_weights", "weights", inner="a.bin", graph="a.xml")
def openvino_weights() -> dict[str, bytes]:
    return {"a.xml": IR, "a.bin": struct.pack("<8f", *range(8))}


NCNN = b"7767517\n2 2\nInput            data    0 1 data\nConvolution      c    1 1 data y 0=8 1=3\n"


@case("a.param", "ncnn", "parameters", companions=["a.bin"])
def ncnn() -> bytes:
    return NCNN


@case("b.param", "ncnn", "pnnx")
def pnnx() -> bytes:
    return b"7767517\n2 2\npnnx.Input     in  0 1 0\nnn.Conv2d    conv 1 1 0 1 bias=True\n"


@case("a.param.bin", "ncnn", "binary parameters")
def ncnn_binary() -> bytes:
    return struct.pack("<8L", 7767517, 2, 2, 16, 0, 1, 0, 0)


@case("ncnn", "ncnn", "weights", inner="a.bin", graph="a.param")
def ncnn_weights() -> dict[str, bytes]:
    return {"a.param": NCNN, "a.bin": bytes(4) + struct.pack("<8f", *range(8))}


@case("a.mnn", "mnn", operators=1, tensors=2)
def mnn() -> bytes:
    operators = [([U32(0)], None, None, "conv", [U32(1)], U32(2))]
    return Flat().finish(None, None, None, operators, ["y"], U8(0), U8(3), ["x", "y"], U32(2))


@case("a.pdmodel", "paddle", "program", blocks=1)
def paddle() -> bytes:
    block = message((1, 0), (2, 2**64 - 1), (3, message((1, "w"))), (4, message((3, "conv2d"))))
    return message((1, block), (4, message((1, 0))))


@case("a.pdiparams", "paddle", "parameters")
def paddle_parameters() -> bytes:
    tensor = message((1, 5), (2, 4))
    return bytes(16) + struct.pack("<l", len(tensor)) + tensor + bytes(16)


@case("a.json", "paddle", "program, JSON")
def paddle_json() -> bytes:
    return as_json({"base_code": {"magic": "pir", "version": 1}, "program": {"regions": []}})


@case("a.mlmodelc", "mlmodelc")
def mlmodelc() -> dict[str, bytes]:
    return {"coremldata.bin": b"x", "model.mil": b"program(1.0)", "metadata.json": b"[]"}


def flat(identifier: bytes) -> bytes:
    return Flat(identifier).finish(U32(0), "name")


@case("a.pte", "executorch", "", "12")
def executorch() -> bytes:
    return flat(b"ET12")


@case("a.ort", "ort")
def ort() -> bytes:
    return flat(b"ORTM")


@case("a.circle", "circle", "", "0")
def circle() -> bytes:
    return flat(b"CIR0")


@case("a.ms", "mindspore", "", "2")
def mindspore() -> bytes:
    return flat(b"MSL2")


FOREST = b"\x80\4\x8c\x18sklearn.ensemble._forest\x8c\x16RandomForestClassifier\x93)\x81}(\x8c\7classesK\3\x8c\x10_sklearn_version\x8c\0061.9.0\0ub."
FOREST = FOREST.replace(b"\x8c\0061.9.0\0", b"\x8c\0051.9.0")
WRAPPER = b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}(" + text("shape") + b"K\2\x85ub"
REGRESSION = b"\x80\2csklearn.linear_model._base\nLinearRegression\n)\x81}(" + text("coef_") + WRAPPER + b"\4\xff\xff\xff\xff" + bytes(16) + b"ub."
ARRAY = b"\x80\2}(" + text("a") + WRAPPER + b"\4\xff\xff\xff\xff" + bytes(16) + b"u."


@case("a.pkl", "sklearn", "pickle", "4", compression="", **{"class": "sklearn.ensemble._forest.RandomForestClassifier"})
def sklearn() -> bytes:
    return FOREST


@case("a.joblib", "sklearn", "joblib", "2", **{"class": "sklearn.linear_model._base.LinearRegression"})
def sklearn_joblib() -> bytes:
    return REGRESSION


@case("a.joblib.z", "sklearn", "joblib, zlib", compression="zlib")
def sklearn_zlib() -> bytes:
    return zlib.compress(REGRESSION)


@case("a.joblib.gz", "sklearn", "joblib, gzip")
def sklearn_gzip() -> bytes:
    return gzip.compress(REGRESSION)


@case("a.joblib.xz", "sklearn", "joblib, xz")
def sklearn_xz() -> bytes:
    return lzma.compress(REGRESSION)


@case("a.joblib.bz2", "sklearn", "joblib, bzip2")
def sklearn_bzip2() -> bytes:
    return bz2.compress(REGRESSION)


@case("a.joblib.lz4", "sklearn", "joblib, lz4")
def sklearn_lz4() -> bytes:
    """One block of literals, as long as their length takes, then the end mark."""
    literals = len(REGRESSION) - 15
    block = b"\xf0" + b"\xff" * (literals // 255) + bytes([literals % 255]) + REGRESSION
    return b"\x04\x22\x4d\x18\x60\x40\x82" + struct.pack("<L", len(block)) + block + bytes(4)


@case("b.joblib", "joblib", "joblib", keys=["a"])
def joblib() -> bytes:
    return ARRAY


@case("c.joblib", "joblib", "joblib, zlib of joblib 0.9")
def joblib_old() -> bytes:
    return b"ZF" + hex(len(ARRAY)).encode().ljust(19) + zlib.compress(ARRAY)


@case("b.pkl", "pickle", "xgboost", **{"class": "xgboost.sklearn.XGBClassifier"})
def pickle_xgboost() -> bytes:
    return b"\x80\2cxgboost.sklearn\nXGBClassifier\n)\x81}(" + text("n_estimators") + b"K\4ub."


@case("c.pkl", "pickle", "pickle", "0")
def pickle_0() -> bytes:
    return b"(dp0\nS'a'\np1\nccollections\nOrderedDict\np2\n((lp3\ntp4\nRp5\nsS'b'\np6\n(lp7\nI1\naI2\naI3\nas."


@case("a.skops", "skops")
def skops() -> bytes:
    return zipped({"schema.json": as_json({"__class__": "LogisticRegression", "__module__": "sklearn"}), "1.npy": npy_file()})


@case("config.pbtxt", "triton", "onnxruntime", name="net")
def triton() -> bytes:
    return b'name: "net"\nbackend: "onnxruntime"\nmax_batch_size: 8\ninput [\n  {\n    name: "x"\n    data_type: TYPE_FP32\n    dims: [ 3, 224 ]\n  }\n]\n'


@case("repository", "triton", "onnxruntime", versions=["1"])
def triton_folder() -> dict[str, bytes]:
    return {"config.pbtxt": triton(), "1/model.onnx": onnx_model(b"")}


@case("a.nemo", "nemo")
def nemo() -> bytes:
    return tarred({"./model_config.yaml": b"target: x\n", "./model_weights.ckpt": torch_zip(STATE_DICT)})


MLMODEL = b"""artifact_path: model
flavors:
  python_function:
    loader_module: mlflow.sklearn
  sklearn:
    pickled_model: model.pkl
mlflow_version: 2.9.2
"""


@case("mlflow", "mlflow", "sklearn", "2.9.2")
def mlflow() -> dict[str, bytes]:
    return {"MLmodel": MLMODEL, "model.pkl": FOREST}


@case("a.json", "xgboost", "JSON", "2.1.0")
def xgboost_json() -> bytes:
    return as_json({"learner": {"attributes": {}, "gradient_booster": {"name": "gbtree"}}, "version": [2, 1, 0]})


@case("a.ubj", "xgboost", "UBJSON")
def xgboost_ubj() -> bytes:
    return b"{L" + struct.pack(">q", 7) + b"learner{L" + struct.pack(">q", 10) + b"attributes{}}}"


@case("a.model", "xgboost", "binary", objective="reg:squarederror")
def xgboost_binary() -> bytes:
    return b"binf" + struct.pack("<fLL", 0.5, 4, 0).ljust(136, b"\0") + struct.pack("<Q", 16) + b"reg:squarederror" + bytes(16)


@case("a.txt", "lightgbm", "", "v4")
def lightgbm() -> bytes:
    return b"tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\n"


@case("a.cbm", "catboost")
def catboost() -> bytes:
    return b"CBM1" + struct.pack("<L", 64) + bytes(64)


@case("c.json", "catboost_json")
def catboost_json() -> bytes:
    return as_json({"features_info": {"float_features": []}, "model_info": {"catboost_version_info": "1.2"}, "oblivious_trees": []})


@case("a.prototxt", "caffe", "network, text")
def caffe_text() -> bytes:
    return b'name: "LeNet"\nlayer {\n  name: "data"\n  type: "Input"\n  top: "data"\n}\nlayer {\n  name: "ip"\n  type: "InnerProduct"\n}\n'


@case("a.caffemodel", "caffe", "weights", "2", layers=1)
def caffe() -> bytes:
    return message((1, "LeNet"), (100, message((1, "conv1"), (2, "Convolution"), (4, "x"))))


@case("b.caffemodel", "caffe", "weights", "1")
def caffe_1() -> bytes:
    return message((1, "LeNet"), (2, message((2, "data"), (3, "conv1"), (4, "conv1"), (5, 4))))


@case("predict_net.pb", "caffe2", operators=1)
def caffe2() -> bytes:
    operator = message((1, "x"), (1, "w"), (2, "y"), (4, "Conv"))
    return message((1, "net"), (2, operator), (7, "x"), (8, "y"))


@case("predict_net.pbtxt", "caffe2", "text")
def caffe2_text() -> bytes:
    return b'name: "net"\nop {\n  input: "x"\n  output: "y"\n  type: "Conv"\n}\nexternal_input: "x"\n'


@case("a.dnn", "cntk", "", "1")
def cntk_1() -> bytes:
    return b"B\0C\0N\0\0\0" + bytes(32)


@case("a.cntk", "cntk", "", "2")
def cntk_2() -> bytes:
    value = message((1, 1), (2, 4), (6, 1))
    return message((1, 1), (2, message((1, "version"), (2, value))), (2, message((1, "root"), (2, value))))


@case("yolo.cfg", "darknet", "configuration", sections=2)
def darknet() -> bytes:
    return b"[net]\nbatch=1\nwidth=416\n\n[convolutional]\nfilters=32\n"


@case("yolo.weights", "darknet", "weights", "0.2.5", named=True)
def darknet_weights() -> bytes:
    return struct.pack("<3LQ", 0, 2, 5, 32013312) + bytes(64)


@case("a.t7", "torch7", "binary", "1", **{"class": "nn.Sequential"})
def torch7() -> bytes:
    return struct.pack("<3L", 4, 1, 3) + b"V 1" + struct.pack("<L", 13) + b"nn.Sequential" + bytes(32)


@case("b.t7", "torch7", "text", "1", **{"class": "nn.Sequential"})
def torch7_text() -> bytes:
    return b"4\n1\n3\nV 1\n13\nnn.Sequential\n3\n2\n0\n"


@case("a.mar", "torchserve")
def torchserve() -> bytes:
    return zipped({"MAR-INF/MANIFEST.json": as_json({"model": {"modelName": "net"}}), "model.pt": torch_zip(STATE_DICT), "handler.py": b"x = 1\n"})


@case("a.rknn", "rknn")
def rknn() -> bytes:
    return b"RKNN\0\0\0\0" + struct.pack("<QQ", 6, 64) + bytes(64)


@case("a.hef", "hailo", "executable")
def hailo() -> bytes:
    return b"\x01HEF" + struct.pack(">LL", 1, 64) + bytes(64)


@case("a.har", "hailo", "archive")
def hailo_archive() -> bytes:
    return tarred({"net.hn": as_json({"name": "net", "layers": {}}), "net.npz": zipped({"a.npy": npy_file()})})


@case("a.kmodel", "kmodel", "", "5")
def kmodel() -> bytes:
    return b"LDMK" + struct.pack("<LLL", 5, 0, 1) + bytes(32)


@case("b.kmodel", "kmodel", "", "3", named=True)
def kmodel_3() -> bytes:
    return struct.pack("<8L", 3, 0, 0, 10, 1, 0, 1, 0) + bytes(32)


@case("a.om", "ascend")
def ascend() -> bytes:
    return b"IMOD" + bytes(252)


@case("a.dlc", "dlc")
def dlc() -> bytes:
    return zipped({"model": b"\xd5\x0a\2\0" + bytes(8), "model.params": b"\xd5\x0a\2\0" + bytes(8), "dlc.metadata": b"version=3\n"})


@case("a.nn", "barracuda", "", "20", inputs=1)
def barracuda() -> bytes:
    return struct.pack("<qll", 20, 1, 5) + b"input" + struct.pack("<9l", 8, 1, 1, 1, 1, 1, 1, 1, 4) + bytes(32)


@case("a.sentis", "sentis", named=True)
def sentis() -> bytes:
    return flat(b"STU1")


@case("a.llamafile", "llamafile", weights=["tiny.gguf"])
def llamafile() -> bytes:
    return b"MZqFpD='\n" + bytes(200) + zipped({".args": b"-m\ntiny.gguf\n", "tiny.gguf": gguf_file(3)})


@case("a.litertlm", "litertlm")
def litertlm() -> bytes:
    return b"LITERTLM" + struct.pack("<3L", 1, 0, 0) + bytes(64)


GRAPH = b"version 1.0;\n\ngraph net( x ) -> ( y )\n{\n    x = external(shape = [1, 3]);\n    y = relu(x);\n}\n"


@case("graph.nnef", "nnef", "graph", "1.0")
def nnef() -> bytes:
    return GRAPH


@case("nnef", "nnef", "graph", "1.0")
def nnef_folder() -> dict[str, bytes]:
    return {"graph.nnef": GRAPH, "w.dat": nnef_tensor()}


@case("w.dat", "nnef", "tensor", "1.0")
def nnef_tensor() -> bytes:
    return b"\x4e\xef\1\0" + struct.pack("<3L", 16, 1, 4).ljust(124, b"\0") + bytes(16)


@case("a.mlirbc", "mlir")
def mlir() -> bytes:
    return b"ML\xefR\x0dMLIR17.0.0git\0" + bytes(32)


@case("graph.json", "tvm", "graph")
def tvm() -> bytes:
    nodes = [{"op": "null", "name": "x", "inputs": []}, {"op": "tvm_op", "name": "fused_dense", "attrs": {"num_inputs": "1"}, "inputs": [[0, 0, 0]]}]
    return as_json({"nodes": nodes, "arg_nodes": [0], "heads": [[1, 0, 0]], "node_row_ptr": [0, 1, 2]})


@case("a.msgpack", "jax", "msgpack", first="params/dense/kernel")
def flax() -> bytes:
    array = b"\x93\x91\2\xa7float32\xc4\x08" + bytes(8)
    return b"\x81\xa6params\x81\xa5dense\x81\xa6kernel\xc7" + bytes([len(array), 1]) + array


@case("orbax", "jax", "orbax")
def orbax() -> dict[str, bytes]:
    return {"_METADATA": b"{}", "manifest.ocdbt": b"\x0c", "_sharding": b"{}", "d/a": b"x"}


@case("arch.json", "keras_json", "", "2.15.0", **{"class": "Sequential"})
def keras_json() -> bytes:
    return as_json({"class_name": "Sequential", "config": {"layers": []}, "keras_version": "2.15.0", "backend": "tensorflow"})


@case("spark", "spark_ml", "", "3.5.0")
def spark() -> dict[str, bytes]:
    metadata = as_json({"class": "org.apache.spark.ml.PipelineModel", "sparkVersion": "3.5.0", "uid": "p"})
    return {"metadata/part-00000": metadata, "metadata/_SUCCESS": b"", "data/part-00000.parquet": b"PAR1"}


@case("mojo.zip", "mojo")
def mojo() -> bytes:
    return zipped({"model.ini": b"[info]\nalgorithm = Gradient Boosting Machine\n", "trees/t00_000.bin": bytes(8)})


@case("spiece.model", "sentencepiece")
def sentencepiece() -> bytes:
    def piece(word: str) -> bytes:
        return message((1, word)) + b"\x15" + struct.pack("<f", -1.5) + message((3, 2))
    return message((1, piece("<unk>")), (1, piece("the")), (2, message((3, 1))))


@case("other.h5", "hdf5")
def plain_hdf5() -> bytes:
    return hdf5({"made": "by hand"}, "measurements")


@case("models.zip", "archive", "zip", holds={"models/a.onnx": "onnx", "models/b.safetensors": "safetensors"}, members=3)
def archive_zip() -> bytes:
    return zipped({"models/a.onnx": onnx_model(b""), "models/b.safetensors": safetensors_file("w"), "README.md": b"hello\n"})


@case("models.tar", "archive", "tar", holds={"a.gguf": "gguf"})
def archive_tar() -> bytes:
    return tarred({"a.gguf": gguf_file(3), "b.txt": b"hello"})


@case("a.mlmodel.gz", "archive", "gzip", holds={"a.mlmodel": "coreml"})
def archive_gzip() -> bytes:
    return gzip.compress(core_ml(402))


@case("a.tar.xz", "archive", "xz", holds={"a.tar": "gguf"})
def archive_in_archive() -> bytes:
    return lzma.compress(tarred({"a.gguf": gguf_file(3)}))


@case("a.7z", "archive", "7z")
def archive_7z() -> bytes:
    return b"7z\xbc\xaf\x27\x1c\0\4" + bytes(40)


@case("a.onnx.zst", "archive", "zstd")
def archive_zstd() -> bytes:
    return b"\x28\xb5\x2f\xfd\x24\x05\x29\0\0hello" + bytes(4)

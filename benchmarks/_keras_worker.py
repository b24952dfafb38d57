"""Runs inside the environment of the peer tf2onnx, which has Keras: `names`, `make NAME FILE` or `export FILE TARGET FORMAT`."""
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
import keras  # behind the settings, which TensorFlow reads when it is imported

what, *arguments = sys.argv[1:]
if what == "names":
    print(*(name for name in dir(keras.applications) if name[0].isupper() and callable(getattr(keras.applications, name))))
elif what == "make":
    getattr(keras.applications, arguments[0])(weights=None).save(arguments[1])
else:
    model = keras.models.load_model(arguments[0])
    if arguments[2] == "onnx":                       # it refuses a model that was never called
        model(keras.ops.zeros([1, *(size or 224 for size in model.input_shape[1:])]))
    model.export(arguments[1], format=arguments[2], verbose=False)
